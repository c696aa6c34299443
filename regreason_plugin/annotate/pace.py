"""The pace of the calls to one server: how many run at once, and the reason for a pause."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A server that gives no replies at present.

    Attributes:
        since: Time of the first fault after the last reply, on the clock ``time.monotonic``.
        why: The state of the last fault, with the start of the server's words.
    """

    since: float
    why: str


class Pace:
    """Limits the calls that run at once: halved after status 429, then slowly raised again.

    Args:
        most: The largest number of calls at once, which is also the first limit.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._active = 0
        self._resume = 0.0
        self._freed = asyncio.Event()

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait = self._resume - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
            elif self._active < int(self._limit):
                self._active += 1
                return
            else:
                self._freed.clear()
                await self._freed.wait()

    async def __aexit__(self, *error: object) -> None:
        self._active -= 1
        self._freed.set()

    def slow_down(self, seconds: float) -> None:
        """Start no call for some seconds, then allow half as many calls at once."""
        resume = asyncio.get_running_loop().time() + seconds
        # Many calls get a 429 at the same moment; together they halve the limit only once.
        if resume > self._resume + 0.5 * seconds:
            self._limit = max(1.0, self._limit / 2)
        self._resume = max(self._resume, resume)

    def speed_up(self) -> None:
        """Raise the limit a little; called after a call that succeeded."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)
