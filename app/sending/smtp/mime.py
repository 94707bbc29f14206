"""A letter as the bytes that go on the wire: RFC 5322 header, RFC 2045 body, CRLF only, no line over 998 octets.

Assembled by hand because the generator of the standard library takes 2 ms a letter, thirty times what sending it takes;
tests/sending/smtp/test_mime.py reads every kind of letter back with that library.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from email_validator import EmailNotValidError, validate_email

from app.attachments.files import File
from app.core.mailboxes import parse_mailbox
from app.sending.smtp.enclosed import file_part, within

LINE = 76  # RFC 2045, 6.7 and 6.8; RFC 2047, 2
HARD_LINE = 998  # RFC 5322, 2.1.1


class MalformedLetter(ValueError):
    """The letter cannot be written down: no other attempt would make it."""


class WithoutFile(MalformedLetter):
    """A file that goes with the letter cannot be had any more."""


class NotReady(Exception):
    """What belongs to the letter cannot be had just now; another attempt may have it."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter to one address. `to` and `sender` are mailboxes (`Name <a@b.example>` or a bare address), `message_id` has its brackets.

    `return_path`: the envelope sender, where it is not the sender's own address.
    `files`: inline ones are shown within the HTML, which names them `cid:<name>`; the others, and those that it does not name, are attached.
    `finish`: what is called when its turn has come, for a letter that is not whole yet: it gives the whole one, or raises NotReady or WithoutFile."""

    key: UUID
    to: str
    sender: str
    subject: str
    text: str
    html: str | None
    message_id: str
    date: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    return_path: str | None = None
    reply_to: str | None = None
    files: Sequence[File] = ()
    finish: "Callable[[], Awaitable[Letter]] | None" = None


async def finished(letter: Letter) -> Letter:
    """The whole letter: nearly every one is already."""
    return letter if letter.finish is None else await letter.finish()


class Message(NamedTuple):
    """A letter ready for the wire. `smtputf8`: an address needs the extension of RFC 6531."""

    mail_from: str
    rcpt_to: str
    data: bytes
    smtputf8: bool


def build(letter: Letter) -> Message:
    """The letter on the wire. MalformedLetter when a value cannot stand in a header, or an address is none."""
    try:
        sender, to = _sender(letter.sender), _mailbox("To", letter.to)
        header = [
            f"Date: {_date(letter.date)}",
            sender.header,
            to.header,
            *([_mailbox("Reply-To", letter.reply_to).header] if letter.reply_to else ()),
            f"Message-ID: {_message_id(letter.message_id)}",
            _subject(letter.subject),
            "Auto-Submitted: auto-generated",  # RFC 3834, 5: no vacation answers to these
            *(_extra(name, value) for name, value in letter.headers.items()),
            "MIME-Version: 1.0",
        ]
        body = _body(letter)
    except UnicodeEncodeError as error:  # a lone surrogate
        raise MalformedLetter(f"not valid Unicode: {error.reason} at {error.start}") from None
    return Message(letter.return_path or sender.address, to.address, "\r\n".join(header).encode() + b"\r\n" + body, sender.utf8 or to.utf8)


def _date(date: datetime) -> str:
    if date.tzinfo is None:
        raise MalformedLetter("the date has no zone")
    return format_datetime(date)


MESSAGE_ID = re.compile(r"<[!-;=?A-~]+@[!-;=?A-~]+>")  # RFC 5322, 3.6.4, without the obsolete forms


def _message_id(value: str) -> str:
    if not MESSAGE_ID.fullmatch(value) or len(value) > 900:
        raise MalformedLetter(f"not a Message-ID: {value[:100]!r}")
    return value


# --- addresses ---


class Party(NamedTuple):
    header: str
    address: str
    utf8: bool


# dot-atom of RFC 5322, 3.2.3 at a host name. Everything else (quoted, international) takes the long road.
PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
PRINTABLE = re.compile(r"[ -~]*")


@lru_cache(maxsize=256)
def _sender(value: str) -> Party:
    return _mailbox("From", value)


def _mailbox(field_name: str, value: str) -> Party:
    refuse_line_breaks(field_name, value)
    try:
        name, raw = parse_mailbox(value)
    except ValueError as error:
        raise MalformedLetter(f"{field_name}: {error}") from None
    address = raw if PLAIN_ADDRESS.fullmatch(raw) and ".." not in raw else _international(field_name, raw)
    if not name:
        return Party(f"{field_name}: {address}", address, not address.isascii())
    phrase = f"{field_name}: {_phrase(name, len(field_name) + 2)}"
    space = " " if len(phrase) - phrase.rfind("\n") + len(address) + 2 <= LINE else "\r\n "
    return Party(f"{phrase}{space}<{address}>", address, not address.isascii())


def _international(field_name: str, address: str) -> str:
    """The address with its domain in the ASCII form of IDNA; only its local part may stay international (RFC 6531, 3.2)."""
    try:
        valid = validate_email(address, check_deliverability=False, globally_deliverable=False, allow_quoted_local=True)
    except EmailNotValidError as error:
        raise MalformedLetter(f"{field_name}: {error}") from None
    return f"{valid.local_part}@{valid.ascii_domain}"


def _phrase(name: str, column: int) -> str:
    """The display name as atoms, a quoted string or encoded words (RFC 5322, 3.2.5; RFC 2047, 5)."""
    if len(name) <= LINE - column and PRINTABLE.fullmatch(name) and "=?" not in name:
        return name if ATOMS.fullmatch(name) else '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return _encoded_words(name, column)


# --- header values ---

BREAKS = re.compile(r"[\r\n\x00]")
FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322, 2.2
PLAIN_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?")

# Ours: a second one of these would make the letter invalid (RFC 5322, 3.6) or mean something else to every reader.
OWN_FIELDS = frozenset(
    {"date", "from", "sender", "reply-to", "to", "cc", "bcc", "subject", "message-id", "auto-submitted", "mime-version"}
    | {"content-type", "content-transfer-encoding", "content-disposition", "content-id"}
)


def refuse_line_breaks(field_name: str, value: str) -> None:
    """The one thing that header injection needs."""
    if BREAKS.search(value):
        raise MalformedLetter(f"{field_name}: line breaks and NUL are not allowed in a header")


def _subject(value: str) -> str:
    refuse_line_breaks("Subject", value)
    if not value:
        return "Subject: "
    if PLAIN_VALUE.fullmatch(value) and "=?" not in value:
        line = _folded(f"Subject: {value}")
        if line is not None:
            return line
    return "Subject: " + _encoded_words(value, len("Subject: "))


def _extra(name: str, value: str) -> str:
    refuse_line_breaks(name, value)
    if not FIELD_NAME.fullmatch(name) or name.lower() in OWN_FIELDS:
        raise MalformedLetter(f"not a header that can be added: {name[:100]!r}")
    if not PLAIN_VALUE.fullmatch(value):
        raise MalformedLetter(f"{name}: only printable ASCII, not empty")
    line = _folded(f"{name}: {value}")
    if line is None:
        raise MalformedLetter(f"{name}: a word is longer than a line may be")
    return line


def _folded(line: str) -> str | None:
    """The header line broken before spaces where it is longer than 76; None when a word of it is longer than any line may be.

    RFC 5322, 2.2.3: unfolding takes only the line end away, so the words come back as they were.
    """
    if len(line) <= LINE:
        return line
    lines: list[str] = []
    current = ""
    for word in re.findall(r" *[^ ]+", line):
        # The first word of the value stays beside the field name: a line that has nothing but the name confuses readers.
        if len(current) + len(word) > LINE and current and not (not lines and current.endswith(":")):
            lines.append(current)
            current = word
        else:
            current += word
        if len(current) > HARD_LINE:
            return None
    return "\r\n".join([*lines, current])


def _encoded_words(value: str, column: int) -> str:
    """RFC 2047 words of at most 75 characters, in lines of at most 76, none of which splits a character."""
    data, words, start = value.encode(), [], 0
    room = (LINE - column - 12) // 4 * 3  # 12: `=?utf-8?B?` and `?=`
    while start < len(data):
        end = min(start + room, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # in the middle of a character
            end -= 1
        words.append(f"=?utf-8?B?{b2a_base64(data[start:end], newline=False).decode()}?=")
        start, room = end, 45  # a whole line less its leading space
    return "\r\n ".join(words)


# --- bodies ---


def _body(letter: Letter) -> bytes:
    """Content header, empty line and content:

    mixed( related( alternative(text, html), inline files ), attached files )    each only where there is something for it (RFC 2046, 5.1; RFC 2387)"""
    boundary, html = f"=_{letter.key.hex}", letter.html
    attached = list(letter.files)
    shown: list[tuple[File, str]] = []
    if html is not None and any(file.inline for file in letter.files):
        html, shown = within(html, letter.files, letter.message_id.strip("<>"))
        attached = [file for file in letter.files if all(file is not other for other, _ in shown)]
    words = _part("plain", letter.text)
    if html is not None:  # the better one last (RFC 2046, 5.1.4)
        words = _multipart("alternative", boundary, [words, _part("html", html)])
    if shown:
        words = _multipart('related; type="multipart/alternative"', f"{boundary}r", [words, *(file_part(file, content_id) for file, content_id in shown)])
    if attached:
        words = _multipart("mixed", f"{boundary}m", [words, *(file_part(file) for file in attached)])
    return words if words.endswith(b"\r\n") else words + b"\r\n"


def _multipart(kind: str, boundary: str, parts: Sequence[bytes]) -> bytes:
    delimiter = f"\r\n--{boundary}".encode()
    head = f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n'.encode()
    return b"".join([head, *(piece for part in parts for piece in (delimiter, b"\r\n", part)), delimiter, b"--\r\n"])


def _part(subtype: str, text: str) -> bytes:
    encoding, content = _encoded(text)
    return f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode() + content


def _encoded(text: str) -> tuple[str, bytes]:
    """Plain where it may be, quoted-printable for the occasional foreign character or a long line, else base64."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    data = text.encode()
    # RFC 2045, 2.7: 7bit has neither NUL nor long lines. A boundary in the text would end the part.
    if len(data) == len(text) and "\x00" not in text and "--=_" not in text and (len(text) <= HARD_LINE or max(map(len, text.split("\n"))) <= HARD_LINE):
        return "7bit", data.replace(b"\n", b"\r\n")
    # Two octets for a Cyrillic letter: six in quoted-printable, under three in base64. Below a twelfth of them quoted-printable is shorter.
    if (len(data) - len(text)) * 12 < len(data):
        return "quoted-printable", b2a_qp(data, istext=True).replace(b"\n", b"\r\n")
    packed = b2a_base64(data.replace(b"\n", b"\r\n"), newline=False)  # RFC 2046, 4.1.1: the lines of text end in CRLF
    return "base64", b"\r\n".join([packed[at : at + LINE] for at in range(0, len(packed), LINE)])
