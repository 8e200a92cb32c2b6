"""What a model server says of itself: the models it lists, and its version. A server may lack either page."""

from __future__ import annotations

from typing import Any

import aiohttp

from workers.errors import MalformedReply
from workers.http import exchange, parse_json
from workers.rejections import failure_of

_BODY_BYTES = 1 << 22
_QUICK_S = 10.0


class ServerPages:
    """The pages of one server, read once each and without retries; `url` ends in `/v1`."""

    def __init__(self, session: aiohttp.ClientSession, url: str, api_key: str | None) -> None:
        self._session = session
        self._url = url
        self._api_key = api_key

    async def models(self) -> dict[str, int | None] | None:
        """Context length by model, None where it is not told; None: the server lists no models."""
        data = await self._get(self._url + "/models")
        entries = data.get("data") if isinstance(data, dict) else None
        if not isinstance(entries, list):
            return None
        lengths = {
            str(each.get("id")): each.get("max_model_len") for each in entries if isinstance(each, dict)
        }
        return {name: length if type(length) is int else None for name, length in lengths.items()}

    async def version(self) -> str | None:
        """What the server calls itself; None: it does not say."""
        data = await self._get(self._url.removesuffix("/v1") + "/version")
        version = data.get("version") if isinstance(data, dict) else None
        return version if isinstance(version, str) else None

    async def _get(self, url: str) -> Any:
        """JSON of a page that a server may lack: None where it does. An unreachable server is an error."""
        reply = await exchange(
            self._session, "GET", url, api_key=self._api_key, deadline_s=_QUICK_S, max_bytes=_BODY_BYTES
        )
        if reply.status in (401, 403):
            raise failure_of(reply.status, reply.body)
        try:
            return parse_json(reply.body) if reply.status == 200 else None
        except MalformedReply:
            return None
