"""The states of failed calls that `--retry-failed` takes."""

from __future__ import annotations

from itertools import chain

import pytest
from helpers import answer_modes, wire_modes

from regreason_plugin.annotate.asked_again import FAILED_STATES
from regreason_plugin.cli import main


def test_they_are_the_states_that_servers_cause() -> None:
    # (The last two need an address without a server and a server that waits.)
    caused = {"unknown_host", "unreachable", "tls_error", "stalled"}
    caused |= {mode.state for mode in wire_modes.MODES.values()} - {"ok", "stops"}
    for mode in chain.from_iterable(answer_modes.MODES.values()):
        caused |= {read for read in (mode.rating, mode.explained) if isinstance(read, str)}
    # (These two end the run, and their calls are given back.)
    assert caused == FAILED_STATES - {"unauthorized", "quota_used_up"}


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ("stalled,refuse", "'refuse' is no state of a failed call; did you mean 'refused'?"),
        ("annotate.yml", "(write the config before --retry-failed)"),
    ],
)
def test_an_unknown_state_is_refused(
    states: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["annotate", "--retry-failed", states])
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
