"""A user's mistake gives one line and exit code 2, whichever process meets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from regreason_plugin.core.errors import UserError, stop_on_user_error


@pytest.mark.parametrize(
    ("rank", "of_one_rank", "lines"),
    [("0", False, 1), ("1", False, 0), ("0", True, 1), ("1", True, 1)],
)
def test_each_mistake_is_said_once(
    rank: str,
    of_one_rank: bool,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("LOCAL_RANK", rank)
    with pytest.raises(SystemExit) as end, stop_on_user_error(of_one_rank=of_one_rank):
        raise UserError("is\nnot there", path=Path("data"), line=3)
    assert end.value.code == 2
    assert capsys.readouterr().err.count("regreason: data, line 3: is not there\n") == lines


def test_our_own_bugs_raise() -> None:
    with pytest.raises(KeyError), stop_on_user_error():
        raise KeyError("a bug")
