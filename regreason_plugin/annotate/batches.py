"""OpenAI's Batch API: a file of requests is uploaded, and a file of results downloaded later.

Each request has a ``custom_id``, the hash of its call's key. vLLM's `run-batch` reads and writes
the same files without a server.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from regreason_plugin.annotate.calls import Batch, key_hash
from regreason_plugin.annotate.client import Server
from regreason_plugin.annotate.faults import TransientFault, server_words
from regreason_plugin.annotate.questions import Question
from regreason_plugin.annotate.reply import Reply
from regreason_plugin.annotate.server_rater import ServerRater

# The limits of one batch: https://developers.openai.com/api/docs/guides/batch
MOST_REQUESTS = 50_000
MOST_BYTES = 200_000_000
_ENDPOINT: Final = "/v1/chat/completions"
# Seconds for the upload and the download of a file.
_TRANSFER = 600.0
_ENDED = {"completed", "expired", "cancelled", "failed"}


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        state: The server's word, such as ``in_progress`` or ``completed``.
        words: The server's words about an error; empty if there is none.
        files: Ids of the files with results.
    """

    state: str
    words: str = ""
    files: tuple[str, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether no more results will come."""
        return self.state in _ENDED


class BatchPlace(Protocol):
    """Where batches are sent: a server, or a folder."""

    async def send(self, name: str, lines: bytes, started: Callable[[str], None]) -> str:
        """Send a batch.

        Args:
            name: The batch's name in the store.
            lines: The requests, one per line.
            started: Called with the id of the file just before the batch may come into being.

        Returns:
            The batch's id.

        Raises:
            Fault: The batch could not be sent, or nobody knows whether it was.
        """

    async def find(self, batch: Batch) -> str | None:
        """The id of a batch that may have been sent; None if it was not."""

    async def progress(self, batch_id: str) -> Progress:
        """How far a batch is."""

    async def results(self, progress: Progress) -> dict[str, Any]:
        """The results of a batch by ``custom_id``; of several with the same id the first."""

    def read(self, response: httpx2.Response) -> Reply:
        """Read the reply out of a response.

        Raises:
            Fault: There is no reply in it.
        """

    async def close(self) -> None:
        """Close all connections."""


def request_line(rater: ServerRater, question: Question) -> bytes:
    """The line of a batch file that makes a call; the body is that of a single request."""
    body = {
        "messages": [{"role": "user", "content": question.prompt()}],
        "model": rater.model,
        **rater.structured_fields(question.schema),
        **rater.request_body(),
    }
    call = {
        "custom_id": key_hash(question.key),
        "method": "POST",
        "url": _ENDPOINT,
        "body": body,
    }
    return json.dumps(call).encode("ascii") + b"\n"


def response_of(result: dict[str, Any]) -> httpx2.Response | None:
    """The response in a result; None if the server has not made the request."""
    response = result.get("response")
    if not isinstance(response, dict) or not isinstance(response.get("status_code"), int):
        return None
    return httpx2.Response(response["status_code"], json=response.get("body"))


class BatchServer(Server):
    """A server with the Batch API."""

    async def send(self, name: str, lines: bytes, started: Callable[[str], None]) -> str:
        """Upload the requests and make the batch; see `BatchPlace`."""
        upload = (f"{name}.jsonl", lines, "application/jsonl")
        file = await self._retried(
            lambda: self._client.files.with_raw_response.create(
                file=upload, purpose="batch", extra_headers=self._omitted, timeout=_TRANSFER
            )
        )
        file_id = str(_field(file, "id"))
        started(file_id)
        # Sent once only: after an error, the server may have made the batch nevertheless.
        made = await self._once_only(
            self._client.batches.with_raw_response.create(
                completion_window="24h",
                endpoint=_ENDPOINT,
                input_file_id=file_id,
                metadata={"regreason": name},
                extra_headers=self._omitted,
            )
        )
        return str(_field(made, "id"))

    async def find(self, batch: Batch) -> str | None:
        """Look for a batch in the server's list by its file and by its metadata."""
        after = ""
        while True:
            page = await self._retried(
                lambda: self._client.batches.with_raw_response.list(
                    limit=100,
                    extra_query={"after": after} if after else None,  # noqa: B023
                    extra_headers=self._omitted,
                )
            )
            listed = _field(page, "data")
            for one in listed:
                named = (one.get("metadata") or {}).get("regreason") == batch.name
                if named or one.get("input_file_id") == batch.file:
                    return str(one["id"])
            if not listed or not _json(page).get("has_more"):
                return None
            after = listed[-1]["id"]

    async def progress(self, batch_id: str) -> Progress:
        """Ask how far a batch is."""
        response = await self._retried(
            lambda: self._client.batches.with_raw_response.retrieve(
                batch_id, extra_headers=self._omitted
            )
        )
        said = _json(response)
        files = (said.get("output_file_id"), said.get("error_file_id"))
        errors = (said.get("errors") or {}).get("data")
        words = server_words(json.dumps(errors).encode()) if errors else ""
        return Progress(str(_field(response, "status")), words, tuple(filter(None, files)))

    async def results(self, progress: Progress) -> dict[str, Any]:
        """Download the results of a batch."""
        contents = [
            await self._retried(
                lambda: self._client.files.with_raw_response.content(
                    file,  # noqa: B023
                    extra_headers=self._omitted,
                    timeout=_TRANSFER,
                )
            )
            for file in progress.files
        ]
        return by_custom_id(line for one in contents for line in one.content.splitlines())

    async def _once_only(self, request: Awaitable[Any]) -> httpx2.Response:
        with self.faults():
            response: httpx2.Response = (await request).http_response
        return response

    async def _retried(self, request: Callable[[], Awaitable[Any]]) -> httpx2.Response:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(TransientFault),
            stop=stop_after_attempt(self._rater.retries + 1),
            wait=wait_exponential(max=60),
            reraise=True,
        ):
            with attempt:
                response = await self._once_only(request())
        return response


def by_custom_id(lines: Iterable[bytes]) -> dict[str, Any]:
    """The results in some lines by ``custom_id``; of several with the same id the first."""
    results: dict[str, Any] = {}
    for line in lines:
        try:
            result = json.loads(line)
            results.setdefault(str(result["custom_id"]), result)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # The call of a damaged line has no result, so it is made again.
    return results


def _json(response: httpx2.Response) -> dict[str, Any]:
    try:
        said = response.json()
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise TransientFault("broken_body", server_words(response.content))
    return said


def _field(response: httpx2.Response, name: str) -> Any:
    """A field of the JSON in a response.

    Raises:
        Fault: The response has no such field.
    """
    said = _json(response)
    if not said.get(name) and said.get(name) != []:
        raise TransientFault("no_batch_api", server_words(response.content))
    return said[name]
