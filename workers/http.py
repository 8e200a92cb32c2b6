"""One HTTP exchange of JSON with a model server: bounded in time and size, every failure an `EndpointError`.

It knows nothing of samples, retries or replicas, and it never lets an API key into a text: not into an error,
not into the exception chained to it, not into a URL that is shown.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from workers.errors import DeadlineExceeded, EndpointError, MalformedReply, Misconfigured, Unreachable
from workers.load import ASK_HEADER, ASK_VALUE, HEADER, Load, parse_load

CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 4.0  # below the 5 s of uvicorn and vLLM: whoever closes first must be us, POST is not resent
MAX_ERROR_BODY_BYTES = 1 << 16
MAX_TEXT = 300
UNMISTAKABLE_KEY = 16
"""A key of so many characters is no word of a model: it is taken out of good replies as well. Many servers of one's own
have keys like `EMPTY`, and a sample must stay what the model wrote."""
_LARGE_BODY_BYTES = 1 << 20  # above it aiohttp warns about plain bytes
_OK = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, `Retry-After` header and body of a reply of any status."""

    status: int
    retry_after: str | None
    body: bytes
    load: Load | None = None
    """What the server says of its load, where it says so."""


def open_session() -> aiohttp.ClientSession:
    """Session without cookies, proxies, pool limit or total timeout: those limits are the caller's."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0, limit_per_host=0, keepalive_timeout=KEEPALIVE_S, ttl_dns_cache=300
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        trust_env=False,
    )


def read_api_key(variable: str | None) -> str | None:
    """Read the key from its environment variable; `Misconfigured` if that is unset or no header value."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise Misconfigured(f"the environment variable {variable} (api_key_env) is not set")
    if not key.isascii() or not key.isprintable():
        raise Misconfigured(
            f"the environment variable {variable} (api_key_env) holds characters no header can carry"
        )
    return key


async def exchange(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    api_key: str | None = None,
    body: bytes | None = None,
    deadline_s: float,
    max_bytes: int,
) -> Reply:
    """Send one request and read the whole reply, whatever its status.

    Raises `Unreachable`, `DeadlineExceeded`, `MalformedReply` (over `max_bytes`, no HTTP) or `Misconfigured`
    (a URL that is none, a certificate that is not trusted). On expiry the socket is closed.
    """
    try:
        async with asyncio.timeout(deadline_s):
            reply = await _send(session, method, url, api_key, body, max_bytes)
            if reply.status == _OK and len(api_key or "") < UNMISTAKABLE_KEY:
                return reply
            return replace(reply, body=without_key(reply.body, api_key))
    except TimeoutError:
        pass
    raise DeadlineExceeded(f"no reply within {deadline_s:.0f} s")


async def _send(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    api_key: str | None,
    body: bytes | None,
    max_bytes: int,
) -> Reply:
    data = io.BytesIO(body) if body is not None and len(body) >= _LARGE_BODY_BYTES else body
    headers = _headers(api_key)
    try:
        async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as reply:
            read = await _read_bounded(reply, max_bytes)
            load = parse_load(reply.headers.get(HEADER))
            return Reply(reply.status, reply.headers.get("Retry-After"), read, load)
    except (aiohttp.ClientError, OSError) as caught:
        failure = _translate(caught, api_key)
    # Raised out here so that it has no context: aiohttp's exceptions hold the request headers, hence the key.
    raise failure


async def _read_bounded(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    is_error = response.status != _OK
    bound = MAX_ERROR_BODY_BYTES if is_error else max_bytes
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > bound:
            response.close()
            if is_error:
                break
            raise MalformedReply(f"the body is longer than {bound} bytes")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", ASK_HEADER: ASK_VALUE}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


def _translate(caught: Exception, api_key: str | None) -> EndpointError:
    text = shorten(redact(f"{type(caught).__name__}: {caught}", api_key))
    if isinstance(caught, aiohttp.InvalidURL | aiohttp.ClientConnectorCertificateError):
        return Misconfigured(text)
    if isinstance(caught, aiohttp.ClientResponseError):
        return MalformedReply(f"not HTTP as it should be: {text}", status=caught.status)
    return Unreachable(text)


def without_key(body: bytes, api_key: str | None) -> bytes:
    """Keep a server from handing our key back: some quote it where they refuse it."""
    if api_key is None:
        return body
    plain = body.replace(api_key.encode(), b"***")
    return plain.replace(api_key.replace("/", "\\/").encode(), b"***")  # as some write JSON


def parse_json(body: bytes, secret: str | None = None) -> Any:
    """Decode JSON; NaN and lone surrogates pass, anything else is a `MalformedReply` without the secret."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        pass
    beginning = redact(body[: 4 * MAX_TEXT].decode("utf-8", "replace"), secret)
    raise MalformedReply(f"not JSON: {shorten(beginning)!r}")


def redact(text: str, secret: str | None) -> str:
    """Return the text without the secret."""
    return text.replace(secret, "***") if secret else text


def public_url(url: str) -> str:
    """Return the URL without user, password, query and fragment: what may be shown and stored."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shorten(text: str, width: int = MAX_TEXT) -> str:
    """Return one line of at most `width` characters, without those that could steer a terminal."""
    line = " ".join(text[: 16 * width].split())
    line = line if len(line) <= width else line[: width - 1] + "…"
    return line if line.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in line)
