"""Downloads files from public GitHub repositories, each at a fixed commit."""

from __future__ import annotations

from typing import NamedTuple

import httpx

from regreason_plugin.core.errors import UserError


class PublicFile(NamedTuple):
    """A file that can be downloaded without an account.

    Attributes:
        repository: The repository, ``owner/name``.
        commit: The commit, 40 hexadecimal digits, so that the file never changes.
        path: The path of the file in the repository.
    """

    repository: str
    commit: str
    path: str

    @property
    def url(self) -> str:
        """The address from which the file is downloaded."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def download(self) -> bytes:
        """Download the file, and return its bytes.

        Raises:
            UserError: The server cannot be reached, or does not have the file.
        """
        try:
            response = httpx.get(self.url, follow_redirects=True, timeout=60)
            response.raise_for_status()
        except httpx.HTTPError as error:
            reason = (
                f"the server says {error.response.status_code}"
                if isinstance(error, httpx.HTTPStatusError)
                else f"no network: {type(error).__name__}"
            )
            raise UserError(
                f"cannot be downloaded ({reason}); download it on another machine and name the "
                "copy with --from",
                path=self.url,
            ) from None
        return response.content
