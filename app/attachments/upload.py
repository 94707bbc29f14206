"""An upload on its way in: a form with one file (RFC 7578), written down piece by piece while its SHA-256 is counted.

It waits in a temporary file until it is whole: an uploader may be slow, and no transaction is open while we wait for him.
"""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from app.core.errors import BadRequest, TooLarge, WrongMediaType, field_invalid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # there for checkers alone

LARGEST = 5 << 20  # octets of one file
FORM = "multipart/form-data"
FIELD = "file"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that has come whole. `name` is what the uploader called it, as it came."""

    file: BinaryIO
    name: str
    size: int
    sha256: bytes


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[Upload]:
    """The one file of the request; it is gone afterwards. BadRequest, TooLarge, Invalid or WrongMediaType when that is not what came."""
    form = _Form(_boundary(request))
    with tempfile.TemporaryFile() as file:
        form.file = file
        try:
            async for chunk in request.stream():
                form.feed(chunk)
        except ClientDisconnect:
            raise BadRequest("The body ended before its end: nothing was kept.", code="body_unfinished") from None
        yield form.finished()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != FORM.encode():
        raise WrongMediaType(f"Send the file as {FORM}, in the field `{FIELD}`.")
    boundary = options.get(b"boundary", b"")
    if not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise BadRequest("The content type names no boundary of 1 to 70 characters.", code="malformed_multipart")
    return boundary


class _Form:
    """What the parser finds, taken down as it comes: nothing of the contents stays in memory."""

    def __init__(self, boundary: bytes) -> None:
        self.file: BinaryIO
        self._digest, self._size = hashlib.sha256(), 0
        self._name: str | None = None
        self._header, self._value, self._disposition = bytearray(), bytearray(), b""
        self._ended = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_header_begin": self._clear,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._take_header,
            "on_headers_finished": self._take_part,
            "on_part_data": self._take_data,
            "on_end": self._end,
        }
        self._parser = MultipartParser(boundary, callbacks)

    def feed(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BadRequest(f"This is no {FORM}: {error}", code="malformed_multipart") from None

    def finished(self) -> Upload:
        if not self._ended:
            raise BadRequest("The form ends before its last boundary.", code="body_unfinished")
        if self._name is None:
            raise field_invalid((FIELD,), "missing", f"Send a file in the field `{FIELD}`.")
        if self._size == 0:
            raise field_invalid((FIELD,), "empty_file", "The file is empty.")
        self.file.flush()
        return Upload(self.file, self._name, self._size, self._digest.digest())

    def _begin(self) -> None:
        self._disposition = b""

    def _clear(self) -> None:
        self._header.clear()
        self._value.clear()

    def _take_header(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._value)

    def _take_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        field = options.get(b"name", b"").decode("utf-8", "replace")
        if field != FIELD:
            raise field_invalid((field[:100],), "extra_forbidden", f"The form has one field alone, `{FIELD}`.")
        if self._name is not None:
            raise field_invalid((FIELD,), "too_many", "Send one file at a time.")
        self._name = options.get(b"filename", b"").decode("utf-8", "replace")

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._size > LARGEST:
            raise TooLarge(f"A file may have at most {LARGEST >> 20} MiB.")
        piece = data[start:end]
        self._digest.update(piece)
        self.file.write(piece)

    def _end(self) -> None:
        self._ended = True
