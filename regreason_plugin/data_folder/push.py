"""Uploads a data folder to a dataset repository on the Hub.

Only the files that the manifest lists are uploaded, with the manifest and the card. The Hub
client handles the token (`hf auth login`, or HF_TOKEN); this module only checks that there is
one, and never shows it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import httpx
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from regreason_plugin.core.errors import UserError
from regreason_plugin.core.whole_files import refusal
from regreason_plugin.data_folder.card import CARD
from regreason_plugin.data_folder.folder import MANIFEST, DataFolder

_MEANINGS = {
    401: "the token is not valid; run `hf auth login`, or set another HF_TOKEN",
    403: "the token has no write access to this repository; use one that has",
    404: "there is no such user or organisation, or the token has no access to it",
    409: "the repository was changed at the same time; push again",
    413: "a file is too large for the Hub",
    429: "too many requests; push again later",
}


class Pushed(NamedTuple):
    """The result of an upload.

    Attributes:
        url: The address of the dataset's page.
        files: The names of the uploaded files, sorted.
        left_out: The names of files in the folder that the manifest does not list; they were not
            uploaded.
    """

    url: str
    files: list[str]
    left_out: list[str]


def push(folder: DataFolder, repo: str, *, private: bool = False) -> Pushed:
    """Verify every file and upload the folder in one commit.

    Args:
        folder: An opened data folder.
        repo: The repository, ``ORG/NAME``; created if it does not exist.
        private: Make a new repository private. An existing one keeps its visibility.

    Raises:
        UserError: A file does not match the manifest; there is no card, no token or no network;
            or the Hub refuses the upload.
    """
    _check_repo(repo)
    files = _verified(folder)
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it")
    if get_token() is None:
        raise UserError("there is no token for the Hub; run `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        url = api.create_repo(repo, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder.path,
            allow_patterns=files,
            commit_message=f"RegReason data, manifest {folder.sha256[:16]}",
        )
    except HfHubHTTPError as error:
        # The Hub's own message is not shown, because it might repeat the token.
        status = error.response.status_code
        meaning = _MEANINGS.get(status, "push again later")
        raise UserError(f"the Hub refused {repo} with {status}: {meaning}") from None
    except (httpx.HTTPError, OSError) as error:
        # The disk may be at fault: the client records uploads in the folder and in its cache.
        if isinstance(error, OSError) and (said := refusal(error)):
            raise said from None
        raise UserError(
            f"the Hub at {api.endpoint} cannot be reached ({type(error).__name__}); is there a "
            "network?"
        ) from None
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise UserError(
            "the Hub does not accept the card's front matter; build the data again",
            path=folder.path / CARD,
        ) from None
    present = {
        path.relative_to(folder.path).as_posix()
        for path in folder.path.rglob("*")
        if path.is_file()
    }
    return Pushed(str(url), files, sorted(present - set(files)))


def _check_repo(repo: str) -> None:
    try:
        validate_repo_id(repo)
        organisation, slash, name = repo.partition("/")
        if not (organisation and slash and name):
            raise HFValidationError
    except HFValidationError:
        raise UserError(f"--repo {repo!r} is not ORG/NAME, such as my-lab/ratings") from None


def _verified(folder: DataFolder) -> list[str]:
    for name in folder.manifest.files:
        path = Path(name)
        # The Hub's client reads the name as a glob pattern, so it must not contain wildcards.
        if path.is_absolute() or ".." in path.parts or set(name) & set("*?[]\\"):
            raise UserError(
                f"lists {name!r}, which cannot be a file of a data folder",
                path=folder.path / MANIFEST,
                field="files",
            )
        folder.verify(name)
    if not (folder.path / CARD).is_file():
        raise UserError(
            "is missing; build the data again with `regreason build`", path=folder.path / CARD
        )
    return sorted([*folder.manifest.files, MANIFEST, CARD])
