"""The letters of a mailbox over HTTP, for scripts and people: GET /letters, GET /letters/<n>, GET /letters/<n>.eml, DELETE /letters."""

import asyncio
import json
from collections import deque
from http import HTTPStatus
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from app.simulators.mailbox_letters import ReceivedLetter

HEAD_LIMIT = 16_384
HEAD_TIMEOUT = 10.0


class LetterReader:
    """`async with LetterReader(letters, host, 0) as reader:` listens on `reader.port`. The list takes `to=` and `limit=`, newest first."""

    def __init__(self, letters: deque[ReceivedLetter], host: str, port: int) -> None:
        self.port = port
        self._letters = letters
        self._host = host
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, end of connection."""
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
            method, target, *_ = head.decode("latin-1").split(" ")
            status, kind, body = self._answer(method, target)
            writer.write(
                f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
                f"X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # nobody is there, or it is no HTTP
        finally:
            writer.close()

    def _answer(self, method: str, target: str) -> tuple[HTTPStatus, str, bytes]:
        url = urlsplit(target)
        name = url.path.removeprefix("/letters").strip("/")
        if not url.path.startswith("/letters"):
            return _json(HTTPStatus.NOT_FOUND, {"detail": "the letters are at /letters"})
        if method == "DELETE" and not name:
            self._letters.clear()
            return HTTPStatus.NO_CONTENT, "application/json", b""
        if method != "GET":
            return _json(HTTPStatus.METHOD_NOT_ALLOWED, {"detail": "GET or DELETE"})
        if not name:
            return _json(HTTPStatus.OK, self._list(parse_qs(url.query)))
        number = name.removesuffix(".eml")
        if not number.isdecimal() or int(number) >= len(self._letters):
            return _json(HTTPStatus.NOT_FOUND, {"detail": f"no letter {name}"})
        letter = self._letters[int(number)]
        if name.endswith(".eml"):
            return HTTPStatus.OK, "message/rfc822", letter.raw
        return _json(HTTPStatus.OK, letter.as_json())

    def _list(self, query: dict[str, list[str]]) -> dict[str, Any]:
        to, limit = query.get("to", [""])[0].lower(), query.get("limit", ["100"])[0]
        found = [(number, letter) for number, letter in enumerate(self._letters) if not to or to in map(str.lower, letter.recipients)]
        newest = found[::-1][: int(limit) if limit.isdecimal() else 100]
        return {"total": len(found), "items": [{"number": number, **letter.as_json()} for number, letter in newest]}


def _json(status: HTTPStatus, content: Any) -> tuple[HTTPStatus, str, bytes]:
    return status, "application/json", json.dumps(content, ensure_ascii=False).encode()
