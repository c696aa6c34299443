"""The task files in the repository match the declaration."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from regreason_plugin.core.declaration import Axis, Dataset, Declaration
from regreason_plugin.core.errors import UserError
from regreason_plugin.core.paper import EIGHTEEN
from regreason_plugin.evaluate.task_files import SWEEPS, TASKS, task_files, write_task_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for folder in (TASKS, SWEEPS):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def places(checkout: Path) -> dict[str, str]:
    folder = checkout / TASKS
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode()
        for path in folder.glob("*/*.yaml")
    }


def scopes(checkout: Path, name: str) -> list[str]:
    sweep = yaml.safe_load((checkout / SWEEPS / name).read_text())
    return list(sweep["regreason_scope"])


def with_more() -> Declaration:
    return EIGHTEEN.model_copy(
        update={
            "datasets": {**EIGHTEEN.datasets, "seventh": Dataset(title="Another")},
            "axes": {**EIGHTEEN.axes, "fourth": Axis(title="another", question="How?")},
        }
    )


def test_the_files_of_the_repository_are_what_is_declared(checkout: Path) -> None:
    assert places(ROOT) == task_files(), "run: make tasks"
    assert write_task_files(checkout) == ([], []), "run: make tasks"
    assert scopes(ROOT, "axes.yml") == list(EIGHTEEN.axes)
    assert scopes(ROOT, "settings.yml") == [f"{one}_{two}" for one, two in EIGHTEEN.settings]


def test_a_changed_or_lost_file_is_written_again(checkout: Path) -> None:
    before = places(checkout)
    (checkout / TASKS / "coqa/on_topic.yaml").write_text("task: mine\n")
    (checkout / TASKS / "groups/regreason.yaml").unlink()
    written, removed = write_task_files(checkout)
    assert sorted(written) == [f"{TASKS}/coqa/on_topic.yaml", f"{TASKS}/groups/regreason.yaml"]
    assert removed == []
    assert places(checkout) == before


def test_a_dataset_and_an_axis_more_come_and_go(checkout: Path) -> None:
    before = places(checkout)
    sweeps = {path: path.read_bytes() for path in (checkout / SWEEPS).iterdir()}
    written, removed = write_task_files(checkout, with_more())
    assert not removed
    more = len(with_more().settings) - len(EIGHTEEN.settings)
    # Tasks and twins; two new groups; the group of all; the old groups, which get a task more;
    # two sweeps.
    old = len(EIGHTEEN.datasets) + len(EIGHTEEN.axes)
    assert len(written) == 2 * more + 2 + 1 + old + 2
    assert {"seventh/gen_fourth.yaml", "groups/regreason-seventh.yaml"} <= set(places(checkout))
    every = yaml.safe_load(places(checkout)["groups/regreason.yaml"])["task"]
    assert len(set(every)) == len(every) == len(with_more().settings)
    of_axis = yaml.safe_load(places(checkout)["groups/regreason-fourth.yaml"])["task"]
    assert of_axis[-1] == "regreason_seventh_fourth"
    assert len(of_axis) == len(EIGHTEEN.datasets) + 1
    assert scopes(checkout, "axes.yml")[-1] == "fourth"
    assert scopes(checkout, "settings.yml")[-1] == "seventh_fourth"
    _, removed = write_task_files(checkout)
    assert len(removed) == 2 * more + 2
    assert places(checkout) == before
    assert {path: path.read_bytes() for path in sweeps} == sweeps
    assert not (checkout / TASKS / "seventh").exists()


def test_what_it_did_not_write_stays(checkout: Path) -> None:
    own = {
        "coqa/mine.yaml": "include: ../_label_first.yml\ntask: my_own\n",
        "groups/mine.yaml": "group: my_own\ntask: [regreason_coqa_on_topic]\n",
    }
    for place, text in own.items():
        (checkout / TASKS / place).write_text(text)
    assert write_task_files(checkout) == ([], [])
    assert {place: places(checkout)[place] for place in own} == own


def test_names_that_clash_are_refused(checkout: Path) -> None:
    before = places(checkout)
    twin = EIGHTEEN.model_copy(
        update={"axes": {**EIGHTEEN.axes, "gen_on_topic": Axis(title="clash")}}
    )
    with pytest.raises(UserError, match=r"gen_on_topic\.yaml; rename a dataset or an axis"):
        write_task_files(checkout, twin)
    same = EIGHTEEN.model_copy(update={"axes": {**EIGHTEEN.axes, "coqa": Axis(title="clash")}})
    with pytest.raises(UserError, match=r"groups/regreason-coqa\.yaml"):
        write_task_files(checkout, same)
    assert places(checkout) == before


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run this in a checkout"):
        write_task_files(tmp_path)
    assert not list(tmp_path.iterdir())
