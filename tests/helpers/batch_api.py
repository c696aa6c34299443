"""A local server that speaks OpenAI's Batch API, and can be made to fail.

    with running(BatchApi()) as server: ...

A batch ends as soon as it is asked about while `ready` is true. `requests` counts the requests that
batches have made, by prompt.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from helpers.openai_server import Server, completion, good_answer

Line = dict[str, Any]


@dataclass
class BatchApi(Server):
    """A server with files and batches.

    Attributes:
        ready: Whether batches end.
        ends_as: The state of a batch that has ended.
        changed: Function of the results of a batch. It returns those in its output file and those
            in its error file.
        refuses: Status of the reply to the making of a batch; None for a good one. From 500 on, and
            for 200 (with a body that is no JSON), the batch is made nevertheless.
        lists: Whether the server lists batches.
        files: Contents by file id.
        batches: All batches by id.
    """

    ready: bool = True
    ends_as: str = "completed"
    changed: Callable[[list[Line]], tuple[list[Line], list[Line]]] = lambda lines: (lines, [])
    refuses: int | None = None
    lists: bool = True
    files: dict[str, bytes] = field(default_factory=dict)
    batches: dict[str, Line] = field(default_factory=dict)

    def routes(self) -> list[web.RouteDef]:
        return [
            *super().routes(),
            web.post("/v1/files", self.upload),
            web.get("/v1/files/{id}/content", self.content),
            web.post("/v1/batches", self.create),
            web.get("/v1/batches", self.list),
            web.get("/v1/batches/{id}", self.retrieve),
        ]

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        file = form["file"]
        assert isinstance(file, web.FileField)
        return web.json_response({"id": self.keep_file(file.file.read()), "object": "file"})

    async def content(self, request: web.Request) -> web.Response:
        return web.Response(body=self.files[request.match_info["id"]])

    async def create(self, request: web.Request) -> web.Response:
        text = "made" if self.refuses == 200 else '{"error": "no"}'
        refused = web.Response(text=text, status=self.refuses or 200)
        if self.refuses and 200 < self.refuses < 500:
            return refused
        asked = await request.json()
        assert asked["endpoint"] == "/v1/chat/completions"
        assert asked["completion_window"] == "24h"
        made = {"id": f"batch_{len(self.batches)}", "status": "in_progress", **asked}
        self.batches[made["id"]] = made
        if self.refuses:
            return refused
        return web.json_response(made)

    async def list(self, request: web.Request) -> web.Response:
        if not self.lists:
            return web.json_response({"detail": "Not Found"}, status=404)
        newest = [*self.batches.values()][::-1]
        ids = [one["id"] for one in newest]
        # Pages of one batch, so that looking for a batch has to turn them.
        first = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        page = newest[first : first + 1]
        return web.json_response({"data": page, "has_more": first + 1 < len(newest)})

    async def retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        if self.ready and batch["status"] == "in_progress":
            self._end(batch)
        return web.json_response(batch)

    def keep_file(self, content: bytes) -> str:
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = content
        return file_id

    def _end(self, batch: Line) -> None:
        batch["status"] = self.ends_as
        if self.ends_as == "failed":
            batch["errors"] = {"data": [{"code": "model_not_found", "message": "no such model"}]}
            return
        lines = self.files[batch["input_file_id"]].splitlines()
        output, errors = self.changed([self.result(json.loads(line)) for line in lines])
        for name, results in (("output_file_id", output), ("error_file_id", errors)):
            if results:
                text = "".join(json.dumps(one) + "\n" for one in results)
                batch[name] = self.keep_file(text.encode())

    def result(self, call: Line) -> Line:
        """The result of a line of a batch file."""
        assert (call["method"], call["url"]) == ("POST", "/v1/chat/completions")
        body = call["body"]
        prompt = body["messages"][0]["content"]
        self.requests[prompt] += 1
        self.bodies.append(body)
        said = completion(body, self.fault(prompt, 1) or good_answer(prompt), usage=self.usage)
        assert said.text is not None
        response = {"status_code": 200, "request_id": "r", "body": json.loads(said.text)}
        return {"id": "x", "custom_id": call["custom_id"], "response": response, "error": None}
