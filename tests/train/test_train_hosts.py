"""Two hosts: network namespaces of their own with a cable between them, and one file system.

They meet by torchrun's c10d rendezvous. One of them is killed; the other says so and ends, and
the same command again goes on from the last checkpoint to the adapter of one process.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.step_training import (
    PLUGINS,
    STEPS,
    Trained,
    Trainings,
    launched,
    same_adapter,
    same_log,
    same_training,
    waits,
)

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PORT = 29400


@dataclass(frozen=True)
class Host:
    """A network namespace, as long as its process lives."""

    number: int
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number + 1}"

    @property
    def card(self) -> str:
        return f"host{self.number}"

    def inside(self, *command: str) -> list[str]:
        """A command that runs on this host."""
        target = f"--target={self.process.pid}"
        return ["nsenter", target, "--user", "--net", "--preserve-credentials", *command]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them; they are gone when this process is.

    Raises:
        OSError: Namespaces are not to be had here, and why.
    """
    with ExitStack() as stack:
        # In a user namespace, so that it takes no root; both in one, so that a cable fits.
        first = Host(0, stack.enter_context(_lasting("unshare", "--map-root-user", "--net")))
        second = Host(1, stack.enter_context(_lasting(*first.inside("unshare", "--net"))))
        _do(first, "ip", "link", "add", first.card, "type", "veth",
            "peer", "name", second.card, "netns", str(second.process.pid))  # fmt: skip
        for host in (first, second):
            _do(host, "ip", "address", "add", f"{host.address}/24", "dev", host.card)
            _do(host, "ip", "link", "set", host.card, "up")
            _do(host, "ip", "link", "set", "lo", "up")
        yield first, second


@contextmanager
def _lasting(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with its input, that is, with this one at the latest."""
    with subprocess.Popen(
        [*command, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write("ready\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        if not process.stdout.readline():
            raise OSError(process.stderr.read().strip())
        yield process
        process.kill()


def _do(host: Host, *command: str) -> None:
    done = subprocess.run(host.inside(*command), capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts, where that is possible."""
    with ExitStack() as stack:
        try:
            pair = stack.enter_context(two_hosts())
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield pair


def _torchrun(config: Path, host: Host) -> list[str]:
    return host.inside(
        *("axolotl", "train", str(config), "--launcher", "torchrun", "--"),
        *("--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d"),
        *(f"--rdzv_endpoint=10.77.0.1:{PORT}", f"--local_addr={host.address}"),
        f"--rdzv_conf=is_host={int(host.number == 0)}",
        # (Left out, Axolotl makes one up on each host, and they wait for each other for ever.)
        "--rdzv_id=hosts",
    )


@dataclass(frozen=True)
class Killed:
    """What is left after the second host's process was killed.

    Attributes:
        ended: The exit code of each host's command.
        said: What each printed.
    """

    config: Path
    process: int
    ended: list[int]
    said: list[str]


@pytest.fixture(scope="module")
def killed(hosts: tuple[Host, Host], train: Trainings) -> Killed:
    """Two steps, then a SIGKILL to one of two processes."""
    config = train.config(
        "hosts", train.rows // 2, plugins=PLUGINS, auto_resume_from_checkpoints=True
    )
    with _both(config, hosts, wait="2 1") as running:
        process = waits(config, 1, running)
        os.kill(process, signal.SIGKILL)
        ended = [one.wait(60) for one in running]
    return Killed(config, process, ended, _said(config))


@pytest.fixture(scope="module")
def resumed(hosts: tuple[Host, Host], killed: Killed) -> Trained:
    """The same command on both hosts again."""
    with _both(killed.config, hosts) as running:
        assert [one.wait(300) for one in running] == [0, 0], _said(killed.config)
    return Trained(killed.config.parent / "model")


@contextmanager
def _both(
    config: Path, hosts: tuple[Host, Host], wait: str = ""
) -> Iterator[list[subprocess.Popen[bytes]]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                launched(
                    _torchrun(config, host),
                    config.with_name(host.card),
                    GLOO_SOCKET_IFNAME=host.card,
                    WAIT=wait,
                )
            )
            for host in hosts
        ]


def _said(config: Path) -> list[str]:
    return [config.with_name(f"host{number}").read_text() for number in (0, 1)]


def test_where_there_are_no_namespaces_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(OSError, match="unshare"), two_hosts():
        pass


def test_two_hosts_train_what_one_process_does(killed: Killed, train: Trainings) -> None:
    same_training(Trained(killed.config.parent / "model"), train("whole"), step=2)


def test_a_killed_worker_ends_the_other_host_which_says_why(killed: Killed) -> None:
    assert killed.ended == [1, 1]
    survivor, its_host = killed.said
    # Whose process ended, at the very end; and to the other, which peer is gone.
    assert f"Signal 9 (SIGKILL) received by PID {killed.process}" in its_host
    assert "Connection closed by peer [10.77.0.2]" in survivor
    assert "caused by a remote worker crashing" in survivor
    assert not (killed.config.parent / "model/regreason.json").exists()


def test_the_same_command_goes_on_from_the_last_checkpoint(
    resumed: Trained, train: Trainings
) -> None:
    whole = train("whole")
    # The last step only, with the momentum and the rate of the two before.
    assert len(resumed.rows(1)) == STEPS
    same_log(resumed, whole)
    assert resumed.log()[-1]["learning_rate"] == whole.log()[-1]["learning_rate"]
    same_adapter(resumed.adapter(), whole.adapter())
    assert (resumed.record["processes"], resumed.record["steps"]) == (2, STEPS)
