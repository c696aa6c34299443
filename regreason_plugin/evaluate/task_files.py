"""Write the files that name every declared setting.

``python -m regreason_plugin.evaluate.task_files``, in a checkout.

lm-eval wants a file for every task and every group, and a sweep lists its scopes. These are
written from ``paper.yml``, so that a dataset or an axis is declared in one place; what the tasks
have in common stands in the ``_*.yml`` beside them, which are written by hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from regreason_plugin.core.declaration import Declaration, Setting
from regreason_plugin.core.errors import UserError, stop_on_user_error
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.data_folder.scopes import setting_scope

TASKS = "lm_eval_tasks"
SWEEPS = "axolotl_configs/sweeps"
_GROUPS = "groups"
_TWIN = "gen_"
_SCOPE = "\nregreason_scope:"


def task_files(declaration: Declaration = EIGHTEEN) -> dict[str, str]:
    """The text of every task and group, by its place in the folder of the tasks.

    Raises:
        UserError: Two of them would have the same place, or two groups the same name.
    """
    files: dict[str, str] = {}

    def add(file: str, text: str) -> None:
        if file in files:
            raise UserError(
                f"two tasks or groups would be {file}; give a dataset or an axis another name"
            )
        files[file] = text

    for dataset, axis in declaration.settings:
        for file in (f"{dataset}/{axis}.yaml", f"{dataset}/{_TWIN}{axis}.yaml"):
            add(file, _head(file, declaration) + f"  setting: [{dataset}, {axis}]\n")
    for group, settings in task_groups(declaration):
        file = f"{_GROUPS}/{group}.yaml"
        tasks = "".join(f"  - {name}\n" for name in declaration.task_names(settings))
        add(file, _head(file, declaration) + tasks)
    return files


def task_groups(declaration: Declaration) -> list[tuple[str, list[Setting]]]:
    """Each of lm-eval's groups and its settings: of all, of each dataset, of each axis."""
    if declaration.group is None:
        return []
    settings = declaration.settings
    parts = [
        (f"{declaration.group}-{part}", [setting for setting in settings if part in setting])
        for part in (*declaration.datasets, *declaration.axes)
    ]
    return [(declaration.group, list(settings)), *parts]


def _head(file: str, declaration: Declaration) -> str:
    """How a task's or group's file begins, whether or not it is declared."""
    folder, stem = file.removesuffix(".yaml").split("/")
    if folder == _GROUPS:
        return f"include: ../_group.yml\ngroup: {stem}\ntask:\n"
    if stem.startswith(_TWIN):
        base, task = "explanation", declaration.twin_name(folder, stem.removeprefix(_TWIN))
    else:
        base, task = "label", declaration.task_name(folder, stem)
    return f"include: ../_{base}_first.yml\ntask: {task}\ndataset_kwargs:\n"


def sweep(text: str, scopes: Sequence[str]) -> str:
    """A sweep file with its last key's list replaced."""
    before, key, _ = text.partition(_SCOPE)
    line = f" [{', '.join(scopes)}]\n"
    if len(key + line) > 100:
        line = "\n" + "".join(f"  - {scope}\n" for scope in scopes)
    return before + key + line


def write_task_files(
    root: Path, declaration: Declaration = EIGHTEEN
) -> tuple[list[str], list[str]]:
    """Write what is declared and remove what no longer is.

    Only a file that begins as one of these is removed; others in the folder stay.

    Args:
        root: A checkout.
        declaration: Of the settings.

    Returns:
        What was written because it was missing or different, and what was removed.

    Raises:
        UserError: It is no checkout; as `task_files`.
    """
    folder, sweeps = root / TASKS, root / SWEEPS
    scopes = {
        sweeps / "axes.yml": list(declaration.axes),
        sweeps / "settings.yml": [setting_scope(*one) for one in declaration.settings],
    }
    for path in (folder / "_label_first.yml", *scopes):
        if not path.is_file():
            raise UserError("no such file; run this in a checkout", path=path)
    files = {folder / file: text for file, text in task_files(declaration).items()}
    files |= {path: sweep(path.read_text("utf-8"), names) for path, names in scopes.items()}
    written = []
    for path, text in files.items():
        if not path.is_file() or path.read_bytes() != text.encode():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text.encode())
            written.append(path.relative_to(root).as_posix())
    removed = []
    for path in sorted(folder.glob("*/*.yaml")):
        head = _head(path.relative_to(folder).as_posix(), declaration)
        if path in files or not path.read_bytes().startswith(head.encode()):
            continue
        path.unlink()
        removed.append(path.relative_to(root).as_posix())
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return written, removed


@stop_on_user_error()
def main() -> None:
    """Write the files of the checkout that is named, or of this folder."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    written, removed = write_task_files(root)
    for file in written:
        print(f"written: {file}")
    for file in removed:
        print(f"removed: {file}")
    print(f"{len(EIGHTEEN.settings)} settings, each with its twin: {root / TASKS}")


if __name__ == "__main__":
    main()
