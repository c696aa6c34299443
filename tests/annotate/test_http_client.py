"""The HTTP client against a server that sends a second answer, which nobody has asked for."""

from __future__ import annotations

import asyncio
import json

import pytest

from regreason_plugin.annotate.client import Server
from regreason_plugin.annotate.server_rater import ServerRater


def response(text: str) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


# Seconds until the second answer: together with the first one, before the next request, or never.
@pytest.mark.parametrize(("late", "connections"), [(0.0, 3), (0.05, 3), (None, 1)])
def test_an_answer_belongs_to_its_own_request(late: float | None, connections: int) -> None:
    opened = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                writer.write(response(body["messages"][0]["content"]))
                if late:
                    await writer.drain()
                    await asyncio.sleep(late)
                if late is not None:
                    writer.write(response("stray"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answers() -> list[str]:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        asked = Server(ServerRater(name="rater", model="model", base_url=url))
        texts = []
        for number in range(3):
            reply, attempts = await asked.ask(f"question {number}", {})
            assert attempts == 1
            texts.append(reply.text)
            await asyncio.sleep(0.2)
        await asked.close()
        listening.close()
        return texts

    assert asyncio.run(answers()) == ["question 0", "question 1", "question 2"]
    assert opened == connections
