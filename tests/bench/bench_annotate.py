"""Costs of `regreason annotate`: CPU time per call, peak memory, and reopening a large store.

    python tests/bench/bench_annotate.py                 all benchmarks
    python tests/bench/bench_annotate.py memory 500000   peak memory at 500,000 calls

The server (`tests/helpers/openai_server.py`) runs as another process on the same machine and
answers at once. CPU time is that of the process that makes the calls. "openai alone" sends the same
requests with the openai client, as many at once, but without our store, retries and reading of
answers.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import yaml

from regreason_plugin.annotate.config import AnnotateConfig, read_config
from regreason_plugin.annotate.run import Annotation, annotate
from regreason_plugin.annotate.store import Store
from regreason_plugin.core.jsonl import write_records
from regreason_plugin.core.records import Conversation, Turn
from regreason_plugin.data.mini import mini_conversations

CALLS = 3_000
MEMORY = (1_000, 20_000)
CONVERSATIONS, RATERS = 15_000, 3
CONCURRENCY = 32


class Quiet:
    """A progress display that shows nothing."""

    def asking(self, what: str, tallies: Any) -> Any:
        """A context that shows nothing while calls are made."""
        return nullcontext()

    def answered_first(self, first: Any) -> None:
        """Show nothing of a rater's first answer."""

    def writing(self) -> Any:
        """A context that shows nothing while ratings are written."""
        return nullcontext(lambda: None)


@contextmanager
def serving() -> Iterator[str]:
    """Run the server in another process; yields its base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).parents[1] / "helpers/openai_server.py"
    process = subprocess.Popen([sys.executable, str(script), str(port)])
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def workplace(folder: Path, url: str, conversations: int, raters: int = 1) -> AnnotateConfig:
    """Write four-turn conversations of about 40 words a turn, and a config of 4-prompt raters."""
    folder.mkdir(parents=True, exist_ok=True)
    first = next(iter(mini_conversations(0, 30)))
    words = " ".join(f"word{n % 7}" for n in range(40))

    def made() -> Iterator[Conversation]:
        for number in range(conversations):
            said = [("user", words), ("assistant", words), ("user", words)]
            turns = [*said, ("assistant", f"{number} {words}")]
            update = {
                "id": str(number),
                "group": str(number),
                "context": None,
                "conversation": [Turn(role=role, content=text) for role, text in turns],  # type: ignore[arg-type]
            }
            yield first.model_copy(update=update)

    write_records(folder / "c.jsonl", made())
    config = {
        "conversations": [str(folder / "c.jsonl")],
        "out": str(folder / "r.jsonl"),
        "raters": [
            {"name": f"rater-{n}", "model": f"m{n}", "base_url": url, "concurrency": CONCURRENCY}
            for n in range(raters)
        ],
    }
    (folder / "a.yml").write_text(yaml.safe_dump(config))
    return read_config(folder / "a.yml")


def ask(config: AnnotateConfig) -> None:
    """Make all calls, and write no ratings."""
    with Store(config.store_path) as store:
        Annotation(config, store).ask(Quiet(), False, None)


def openai_alone(config: AnnotateConfig) -> None:
    """Send the same requests with the openai client alone."""
    import openai

    (rater,) = config.servers
    with Store(config.store_path) as store:
        questions = (
            one for some in Annotation(config, store).lanes()[0].questions() for one in some
        )

        async def all_of_them() -> None:
            http = openai.DefaultAioHttpClient(timeout=60)
            client = openai.AsyncOpenAI(
                base_url=rater.base_url, api_key="x", max_retries=0, timeout=60, http_client=http
            )

            async def worker() -> None:
                for one in questions:
                    schema: Any = {"name": "answer", "strict": True, "schema": one.schema}
                    raw = await client.chat.completions.with_raw_response.create(
                        model=rater.model,
                        messages=[{"role": "user", "content": one.prompt()}],
                        temperature=0,
                        max_tokens=300,
                        response_format={"type": "json_schema", "json_schema": schema},
                    )
                    json.loads(raw.http_response.content)

            await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))
            await client.close()

        asyncio.run(all_of_them())


def measured(what: str, config: Path) -> dict[str, float]:
    """Make the calls in this process in one way, and measure it.

    Args:
        what: ``openai``, ``ask`` or ``annotate``.
        config: The config file.

    Returns:
        Seconds of wall-clock time, seconds of CPU time (``cpu``), and peak memory in MiB.
    """
    parsed = read_config(config)
    import openai.resources.chat.completions  # noqa: F401  # not timed

    started, used = time.perf_counter(), time.process_time()
    if what == "openai":
        openai_alone(parsed)
    elif what == "ask":
        ask(parsed)
    else:
        annotate(parsed, Quiet())
    return {
        "seconds": time.perf_counter() - started,
        "cpu": time.process_time() - used,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def elsewhere(what: str, config: Path) -> dict[str, float]:
    """Run `measured` in a new process, because a process's peak memory never falls."""
    command = [sys.executable, __file__, "measure", what, str(config)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def cpu(scratch: Path, rounds: int = 2) -> None:
    """Print the CPU time per call, with and without our code; the two ways take turns."""
    print(f"\n{CALLS:,} calls, {CONCURRENCY} at once")
    print(f"{'way':<22} {'CPU ms per call':>17} {'calls/s':>8} {'calls per CPU s':>17}")
    with serving() as url:
        for round_ in range(rounds):
            for what, name in (("openai", "openai alone"), ("ask", "regreason")):
                folder = scratch / f"{what}-{round_}"
                workplace(folder, url, CALLS // 12)
                found = elsewhere(what, folder / "a.yml")
                print(
                    f"{name:<22} {1000 * found['cpu'] / CALLS:>17.2f} "
                    f"{CALLS / found['seconds']:>8.0f} {CALLS / found['cpu']:>17.0f}",
                    flush=True,
                )


def memory(scratch: Path, sizes: tuple[int, ...]) -> None:
    """Print the peak memory of the whole command, at several numbers of calls."""
    print(f"\n{'calls':>9} {'peak MiB':>9} {'seconds':>8} {'store MiB':>10}")
    with serving() as url:
        for size in sizes:
            config = workplace(scratch / f"memory-{size}", url, size // 12)
            found = elsewhere("annotate", scratch / f"memory-{size}/a.yml")
            print(
                f"{size:>9,} {found['peak']:>9.0f} {found['seconds']:>8.1f} "
                f"{config.store_path.stat().st_size / 2**20:>10.1f}",
                flush=True,
            )


def reopening(scratch: Path) -> None:
    """Print the time to count the calls that are left in a finished store of the paper's size."""
    config = workplace(scratch / "large", "http://localhost:9/v1", CONVERSATIONS, RATERS)
    with Store(config.store_path) as store:
        query = store._database.execute
        query("BEGIN")
        for lane in Annotation(config, store).lanes():
            rows = (
                (*one.key, one.id, "ok", 3, "It reads well for the reason given here.", 1, 900, 40)
                for some in lane.questions()
                for one in some
            )
            store._database.executemany(
                "INSERT INTO calls (conversation, rater, axis, prompt, prompt_sha256, model, "
                "sampling, id, state, score, explanation, attempts, prompt_tokens, answer_tokens) "
                "VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
                rows,
            )
        query("COMMIT")
    size = config.store_path.stat().st_size / 2**20
    for what in ("count", "write"):
        started, used = time.perf_counter(), time.process_time()
        with Store(config.store_path) as store:
            run = Annotation(config, store)
            if what == "count":
                lanes = run.counted_lanes()
                calls = sum(lane.tally.total for lane in lanes)
                assert not any(lane.tally.left for lane in lanes)
                name = "counting the calls that are left"
            else:
                run.write(Quiet())
                name = "writing the ratings"
        print(
            f"{calls:,} calls, {size:.0f} MiB: {name}: "
            f"{time.perf_counter() - started:.1f} s, {time.process_time() - used:.1f} s of CPU",
            flush=True,
        )


def main() -> None:
    """Run the benchmark that the command line names, or all of them."""
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measured(sys.argv[2], Path(sys.argv[3]))))
        return
    what = sys.argv[1] if len(sys.argv) > 1 else "all"
    sizes = tuple(int(size) for size in sys.argv[2:]) or MEMORY
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    with tempfile.TemporaryDirectory() as scratch:
        if what in {"all", "cpu"}:
            cpu(Path(scratch))
        if what in {"all", "memory"}:
            memory(Path(scratch), sizes)
        if what in {"all", "store"}:
            reopening(Path(scratch))


if __name__ == "__main__":
    main()
