"""Write the task files, group files and sweeps of all declared settings.

Run ``python -m regreason_plugin.evaluate.task_files`` in a checkout.

lm-eval needs a file for every task and every group, and a sweep lists its scopes. All of these
are written from ``paper.yml``, so that each dataset and axis is declared in one place only. The
``_*.yml`` files in the tasks' folder hold what the tasks have in common, and are written by hand.
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
    """The text of every task and group file, by its path inside the tasks' folder.

    Raises:
        UserError: Two files would have the same path, or two groups the same name.
    """
    files: dict[str, str] = {}

    def add(file: str, text: str) -> None:
        if file in files:
            raise UserError(
                f"two tasks or groups would have the same file, {file}; rename a dataset or an axis"
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
    """Every lm-eval group with its settings: one of all settings, one per dataset, one per axis."""
    if declaration.group is None:
        return []
    settings = declaration.settings
    parts = [
        (f"{declaration.group}-{part}", [setting for setting in settings if part in setting])
        for part in (*declaration.datasets, *declaration.axes)
    ]
    return [(declaration.group, list(settings)), *parts]


def _head(file: str, declaration: Declaration) -> str:
    """The first lines of a task's or group's file, whether or not the task is declared."""
    folder, stem = file.removesuffix(".yaml").split("/")
    if folder == _GROUPS:
        return f"include: ../_group.yml\ngroup: {stem}\ntask:\n"
    if stem.startswith(_TWIN):
        base, task = "explanation", declaration.twin_name(folder, stem.removeprefix(_TWIN))
    else:
        base, task = "label", declaration.task_name(folder, stem)
    return f"include: ../_{base}_first.yml\ntask: {task}\ndataset_kwargs:\n"


def sweep(text: str, scopes: Sequence[str]) -> str:
    """The text of a sweep file with the list under its last key replaced by ``scopes``."""
    before, key, _ = text.partition(_SCOPE)
    line = f" [{', '.join(scopes)}]\n"
    if len(key + line) > 100:
        line = "\n" + "".join(f"  - {scope}\n" for scope in scopes)
    return before + key + line


def write_task_files(
    root: Path, declaration: Declaration = EIGHTEEN
) -> tuple[list[str], list[str]]:
    """Write the files of all declared settings, and remove those of settings no longer declared.

    A file is removed only if it begins like a generated task or group file; other files in the
    folder stay.

    Args:
        root: A checkout.
        declaration: The declaration of the settings.

    Returns:
        The files that were written because they were missing or different, and the files that
        were removed; paths relative to ``root``.

    Raises:
        UserError: ``root`` is no checkout; or as in `task_files`.
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
    """Write the files of the checkout named on the command line, or of the current folder."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    written, removed = write_task_files(root)
    for file in written:
        print(f"written: {file}")
    for file in removed:
        print(f"removed: {file}")
    print(f"{len(EIGHTEEN.settings)} settings, each with its twin: {root / TASKS}")


if __name__ == "__main__":
    main()
