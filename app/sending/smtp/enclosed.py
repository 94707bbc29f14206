"""Files within a letter: their parts (RFC 2045, 2183, 2231), and the HTML that shows some of them (RFC 2392)."""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from html import unescape
from urllib.parse import quote, unquote

from app.attachments.files import File

LINE = 76  # RFC 2045, 6.8: characters of a line of base64
PIECE = 60  # octets of a name in one parameter: encoded, the line stays under 998 whatever they are (RFC 2231, 3)

_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}(?:; ?[a-z-]{1,20}=(?:[A-Za-z0-9._-]{1,60}|\"[ !#-\[\]-~]{1,60}\"))*")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._()+-]{0,59}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029/\\]")
_SHOWN = re.compile(r"cid:([^\"'<>()\s]+)", re.IGNORECASE)
# What a parameter's value need not escape (RFC 2231, 7: attribute-char).
_SAFE = "!#$&+-.^_`|~"
UNKNOWN = "application/octet-stream"


def within(html: str, files: Sequence[File], unique: str) -> tuple[str, list[tuple[File, str]]]:
    """The HTML with the world-wide names of the files that it shows (RFC 2045, 7), and these. `unique`: the message's id, without brackets.

    What it names and nobody has stays as it is."""
    by_name = {file.name: (file, f"{number}.{unique}") for number, file in enumerate(files) if file.inline}
    shown: dict[str, tuple[File, str]] = {}

    def named(found: re.Match[str]) -> str:
        name = found[1] if found[1] in by_name else unquote(unescape(found[1]))
        if name not in by_name:
            return found[0]
        shown[name] = by_name[name]
        return f"cid:{quote(by_name[name][1], safe='@.-_')}"

    return _SHOWN.sub(named, html), list(shown.values())


def file_part(file: File, content_id: str | None = None) -> bytes:
    """Header, empty line and content of its part. With a `content_id` it is shown in its place, else attached."""
    content_type = file.content_type if _TYPE.fullmatch(file.content_type) else UNKNOWN
    name = _CONTROL.sub("_", file.name).strip() or "file"
    header = [
        f"Content-Type: {content_type}",
        "Content-Transfer-Encoding: base64",
        f"Content-Disposition: {'inline' if content_id else 'attachment'};\r\n {_filename(name)}",
    ]
    if content_id:
        header.append(f"Content-ID: <{content_id}>")
    packed = b2a_base64(file.data, newline=False)
    lines = [packed[at : at + LINE] for at in range(0, len(packed), LINE)]
    return "\r\n".join(header).encode() + b"\r\n\r\n" + b"\r\n".join(lines)


def _filename(name: str) -> str:
    """The parameter `filename`, in pieces where it is long and not of ASCII (RFC 2231, 3 and 4)."""
    if _PLAIN.fullmatch(name):
        return f'filename="{name}"'
    data, pieces, start = name.encode(), [], 0
    while start < len(data):
        end = min(start + PIECE, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        pieces.append(quote(data[start:end], safe=_SAFE))
        start = end
    if len(pieces) == 1:
        return f"filename*=utf-8''{pieces[0]}"
    return ";\r\n ".join(f"filename*{number}*={'' if number else 'utf-8' + chr(39) * 2}{piece}" for number, piece in enumerate(pieces))
