"""Mail that came back, read: delivery status notifications (RFC 3464, RFC 6533) and complaints (RFC 5965). Pure, and nonsense never raises.

The standard library parses headers and decodes parts. It does not walk the tree: its parser is recursive, quadratic in nested boundaries, and makes an object
of every empty line of a delivery status, so that a mail of 1 MiB can keep it busy for minutes. A report has its three parts at the top (RFC 6522, 3),
or a mail or two further in when somebody has forwarded it: DEPTH and PARTS are for that. Nothing is ever unpacked, and no part is decoded but
those that are read, of which the first PART_OCTETS count.
"""

import re
from base64 import b64decode
from binascii import Error as BadBase64
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser
from quopri import decodestring
from typing import Literal

DEPTH, PARTS = 4, 40
HEADER_OCTETS = PART_OCTETS = 64 * 1024
RECIPIENTS = 50  # blocks of one delivery status
VALUE = 1000  # characters of one header's value

Source = Literal["dsn", "arf", "none"]

BOUNDARY = re.compile(r"\bboundary\s*=\s*(?:\"([^\"\r\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
EMPTY_LINE = re.compile(rb"\n[ \t]*\n")
STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")  # RFC 3463, 2
MESSAGE_ID = re.compile(r"<[!-;=?A-~]{1,250}@[!-;=?A-~]{1,250}>")
ADDRESS = re.compile(r"[^\s<>,;\"()]{1,64}@[^\s<>,;\"()]{1,255}")
STATUS_PARTS = ("message/delivery-status", "message/global-delivery-status")
RETURNED_PARTS = ("message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers")
# Headers of the mail itself, or of the letter that came back, that may have our envelope sender.
ENVELOPE_FIELDS = ("To", "Delivered-To", "X-Original-To", "Envelope-To")


@dataclass(frozen=True, slots=True)
class About:
    """What a delivery status says of one recipient. Empty texts where it says nothing."""

    final: str  # Final-Recipient, without its type
    original: str  # Original-Recipient: as the sender had written it
    action: str  # failed, delayed, delivered, relayed, expanded
    status: str  # 5.1.1
    diagnostic: str


@dataclass(slots=True)
class Report:
    """What can be read of a mail that came back. `addresses` may have our envelope sender among them; `message_ids` are of the letter that is meant."""

    source: Source = "none"
    about: list[About] = field(default_factory=list)
    feedback: str = ""  # Feedback-Type: abuse, fraud, not-spam, ...
    complainers: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    message_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Part:
    kind: str  # message/delivery-status
    header: Message
    body: bytes


def read(raw: bytes) -> Report:
    """Of any octets. They are read once, in a few milliseconds for a megabyte, whatever they are."""
    report = Report()
    raw = raw.replace(b"\r\n", b"\n")
    parts = list(_parts(raw))
    report.addresses += [found for name in ENVELOPE_FIELDS for found in _addresses(parts[0].header, name)]
    for part in parts:
        if part.kind in STATUS_PARTS and report.source == "none":
            report.about = _about(_content(part))
            report.source = "dsn" if report.about else "none"
        elif part.kind == "message/feedback-report" and report.source == "none":
            report.source = "arf"
            _read_feedback(_header(_content(part)), report)
        elif part.kind in RETURNED_PARTS:
            _read_returned(_header(_content(part)), report)
    if report.source == "none":
        report.message_ids.clear()  # a forwarded letter is no bounce of it
    return report


# --- structure ---


def _parts(raw: bytes) -> Iterator[Part]:
    """The mail itself, and its parts in their order; at most PARTS, DEPTH below one another."""
    waiting, seen = [(raw, 0)], 0
    while waiting and seen < PARTS:
        octets, depth = waiting.pop()
        seen += 1
        part = _part(octets)
        yield part
        if depth >= DEPTH:
            continue
        if part.kind.startswith("multipart/") and (found := BOUNDARY.search(_value(part.header, "Content-Type"))):
            inner = _split(part.body, (found[1] or found[2]).rstrip().encode("utf-8", "surrogateescape"))
            waiting += [(octets, depth + 1) for octets in reversed(inner)]
        elif part.kind == "message/rfc822":
            waiting.append((part.body, depth + 1))  # a report that was forwarded


def _part(octets: bytes) -> Part:
    if octets.startswith(b"\n"):
        head, body = b"", octets[1:]
    else:
        found = octets.find(b"\n\n")
        head, body = (octets, b"") if found < 0 else (octets[: found + 1], octets[found + 2 :])
    header = _header(head)
    kind = _value(header, "Content-Type").partition(";")[0].strip().lower()
    return Part(kind or "text/plain", header, body)


def _split(body: bytes, boundary: bytes) -> list[bytes]:
    """The parts between the delimiter lines (RFC 2046, 5.1.1); the last one also when its end is missing."""
    pieces = (b"\n" + body).split(b"\n--" + boundary, PARTS + 1)[1:]
    parts = []
    for piece in pieces:
        if piece.startswith(b"--"):
            break
        _, _, inner = piece.partition(b"\n")
        parts.append(inner)
    return parts


def _content(part: Part) -> bytes:
    """The beginning of a part, decoded."""
    encoding = _value(part.header, "Content-Transfer-Encoding").strip().lower()
    octets = part.body[:PART_OCTETS]
    if encoding == "base64":
        octets = b"".join(octets.split())
        try:
            octets = b64decode(octets[: len(octets) // 4 * 4])
        except (BadBase64, ValueError):
            octets = b""
    elif encoding == "quoted-printable":
        octets = decodestring(octets)
    return octets.replace(b"\r\n", b"\n")


def _header(octets: bytes) -> Message:
    """The header fields at the beginning of these octets."""
    head, _, _ = octets[:HEADER_OCTETS].lstrip(b"\n").partition(b"\n\n")
    return BytesHeaderParser().parsebytes(head)


def _value(header: Message, name: str) -> str:
    """The first field of that name as text that a database can hold; "" where there is none."""
    return next(iter(_values(header, name)), "")


def _values(header: Message, name: str) -> list[str]:
    """All of them, at most ten. As they came: 8-bit characters would be taken for an unknown charset, and here they are UTF-8 (RFC 6533)."""
    return [_clean(value) for key, value in header.raw_items() if key.lower() == name.lower()][:10]


def _clean(value: str) -> str:
    text = value[: 4 * VALUE].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return " ".join(text.replace("\0", " ").split())[:VALUE]


def _addresses(header: Message, name: str) -> list[str]:
    return [address for value in _values(header, name) for address in ADDRESS.findall(value)[:10]]


# --- what the parts say ---


def _about(content: bytes) -> list[About]:
    """RFC 3464, 2.1: a block of fields for the mail, then one for each recipient. Some forget the empty line between: a block with a recipient is one."""
    found = []
    for block in EMPTY_LINE.split(content.strip(b"\n"), RECIPIENTS)[: RECIPIENTS + 1]:
        header = _header(block)
        final, original = _typed(header, "Final-Recipient"), _typed(header, "Original-Recipient")
        action, status = _value(header, "Action").lower(), STATUS.search(_value(header, "Status"))
        if final or original or action or status:
            found.append(About(final, original, action.partition(" ")[0], status[1] if status else "", _typed(header, "Diagnostic-Code")))
    return found


def _typed(header: Message, name: str) -> str:
    """`rfc822; a@b.example` without its type (RFC 3464, 2.1.2)."""
    value = _value(header, name)
    kind, semicolon, rest = value.partition(";")
    return rest.strip() if semicolon and " " not in kind.strip() else value


def _read_feedback(header: Message, report: Report) -> None:
    """RFC 5965, 3."""
    report.feedback = _value(header, "Feedback-Type").lower()
    report.complainers += _addresses(header, "Original-Rcpt-To") + _addresses(header, "Removal-Recipient")
    report.addresses += _addresses(header, "Original-Mail-From")


def _read_returned(header: Message, report: Report) -> None:
    report.message_ids += MESSAGE_ID.findall(_value(header, "Message-ID"))[:5]
    report.addresses += _addresses(header, "Return-Path")
