"""The HTTP client of a server: no redirects, no cookies, no answers that nobody asked for."""

from __future__ import annotations

from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx2
import openai


class _AskedOnly(aiohttp.TCPConnector):
    """Connections on which nothing has arrived since the last answer.

    aiohttp would take a late second answer of a broken server or proxy for the answer to the next
    request, which is about another conversation.
    """

    async def connect(self, *arguments: Any, **named: Any) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(*arguments, **named)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


def http_client(timeout: float) -> httpx2.AsyncClient:
    """The client.

    Args:
        timeout: Seconds after which a request fails.
    """
    client = openai.DefaultAioHttpClient(
        timeout=timeout,
        # A redirect would take headers with secrets to another server.
        follow_redirects=False,
        event_hooks={"response": [_read_as_utf8]},
        # No cookies: one that is not ASCII would be sent back, and every later call would fail.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
    )
    # The transport takes a maker of sessions, but the client has no argument for it.
    transport: Any = client._transport
    transport.client = lambda: aiohttp.ClientSession(
        connector=_AskedOnly(
            limit=transport.limits.max_connections,
            keepalive_timeout=transport.limits.keepalive_expiry,
            ssl=transport.ssl_context,
        )
    )
    return client


async def _read_as_utf8(response: httpx2.Response) -> None:
    """JSON is UTF-8; a charset that the server names could be one that Python cannot read."""
    response.encoding = "utf-8"
