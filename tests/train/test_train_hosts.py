"""A training on two hosts: network namespaces with a cable between them and one file system.

The hosts meet by torchrun's c10d rendezvous. When one host is killed, the other reports it and
ends. The same command then resumes from the last checkpoint, and gives the adapter of one process.
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
    """A network namespace, which exists as long as its process lives."""

    number: int
    process: subprocess.Popen[str]

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number + 1}"

    @property
    def card(self) -> str:
        return f"host{self.number}"

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command on this host."""
        target = f"--target={self.process.pid}"
        return ["nsenter", target, "--user", "--net", "--preserve-credentials", *command]


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts with a cable between them; they end with this process.

    Raises:
        OSError: Namespaces are not to be had here, and why.
    """
    with ExitStack() as stack:
        # A user namespace needs no root; both hosts share one, so that a cable can connect them.
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
    """A process that ends when its input ends, which is when this process ends at the latest."""
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
    """Two hosts; the tests are skipped where these cannot be made."""
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
        # Without an id, Axolotl makes one up on each host, and the hosts never meet.
        "--rdzv_id=hosts",
    )


@dataclass(frozen=True)
class Killed:
    """State of a training after the second host's process was killed.

    Attributes:
        ended: Exit code of each host's command.
        said: Output of each host's command.
    """

    config: Path
    process: int
    ended: list[int]
    said: list[str]


@pytest.fixture(scope="module")
def killed(hosts: tuple[Host, Host], train: Trainings) -> Killed:
    """A training in which one of two processes gets a SIGKILL after two steps."""
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
    """The training resumed by the same command on both hosts."""
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
    # The last lines name the killed process; the other host's output names the lost peer.
    assert f"Signal 9 (SIGKILL) received by PID {killed.process}" in its_host
    assert "Connection closed by peer [10.77.0.2]" in survivor
    assert "caused by a remote worker crashing" in survivor
    assert not (killed.config.parent / "model/regreason.json").exists()


def test_the_same_command_goes_on_from_the_last_checkpoint(
    resumed: Trained, train: Trainings
) -> None:
    whole = train("whole")
    # Only the last step is new, with the momentum and the learning rate of the two before.
    assert len(resumed.rows(1)) == STEPS
    same_log(resumed, whole)
    assert resumed.log()[-1]["learning_rate"] == whole.log()[-1]["learning_rate"]
    same_adapter(resumed.adapter(), whole.adapter())
    assert (resumed.record["processes"], resumed.record["steps"]) == (2, STEPS)
