"""One line of an import: what number it is of, its digest, and the account that it says."""

import re
from functools import partial
from hashlib import blake2b
from typing import Any

import orjson
from pydantic import ValidationError

from app.accounts.by_hand import Unusual, plain
from app.accounts.contacts import AddressError
from app.accounts.preference_shapes import AccountLine, Said
from app.accounts.snapshots import Snapshot, snapshot
from app.core.errors import Invalid
from app.core.http import has_nul
from app.core.problems import invalid_from

LINE_OCTETS = 64 << 10
# Raise it when the same line comes to mean something else: then every line is read again.
MEANING = 1

_first_number = re.compile(rb'\{ ?"number": ?"([^"\\\x00-\x1f\x7f]{1,256})"').match


class LineRejected(Exception):
    """Why one line cannot be taken."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class Reader:
    """Reads lines for an operator whose numbers without a country code are dialled in `region`."""

    def __init__(self, region: str) -> None:
        self._region = region
        # What a line means depends on the region: another one makes other digests.
        self._seed = blake2b(f"{MEANING}:{region}".encode(), digest_size=16).digest()

    def digest(self, said: bytes) -> int:
        """64 bits that stand for a line, or for a part of it."""
        return int.from_bytes(blake2b(said, digest_size=8, key=self._seed).digest(), "big", signed=True)

    def read(self, line: bytes, digest: int | None = None, lists: int | None = None) -> Snapshot:
        """One account, or LineRejected. It keeps the digest when the same line later would change nothing, unless something else does.

        Contacts and charges whose digest is `lists` are not looked at any further: `whole` of the snapshot reads them after all.
        """
        if len(line) > LINE_OCTETS:
            raise LineRejected("line_too_long", f"A line has at most {LINE_OCTETS} octets.")
        found = self._by_hand(line, digest, lists) or by_shape(line, self._region)
        if found.balance is None or found.balance_as_of is not None:  # otherwise it is of the moment at which it comes
            found.digest = digest
        return found

    def _by_hand(self, line: bytes, digest: int | None, lists: int | None) -> Snapshot | None:
        said = _object(line)
        if said is None:
            return None
        listed = {name: said[name] for name in ("contacts", "charges") if name in said}
        try:
            listed_digest = self.digest(orjson.dumps(listed)) if listed else None
            if listed_digest is None or listed_digest != lists:
                found = plain(said, self._region)
            else:
                found = plain({name: value for name, value in said.items() if name not in listed}, self._region)
                found.whole = partial(self.read, line, digest)
        except (Unusual, AddressError, orjson.JSONEncodeError):  # the last: lists in lists in lists
            return None
        found.lists = listed_digest
        return found


def by_hand(line: bytes, region: str) -> Snapshot | None:
    """The account, if the line has the usual shape and nothing is wrong with it."""
    said = _object(line)
    try:
        return None if said is None else plain(said, region)
    except (Unusual, AddressError):
        return None


def _object(line: bytes) -> dict[str, Any] | None:
    """The JSON object, unless a NUL may be in it."""
    if b"\\u0000" in line:
        return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return said if type(said) is dict else None


def by_shape(line: bytes, region: str) -> Snapshot:
    """The account, or LineRejected."""
    try:
        given = AccountLine.model_validate_json(line)
        if b"\\u0000" in line and has_nul(given.model_dump()):
            raise LineRejected("nul_character", "A NUL character has no place in a text.")
        one = snapshot(given.number, given, region)
        if given.preferences is not None:
            one.preferences = Said.of(given.preferences)
        return one
    except ValidationError as error:
        found = invalid_from(error.errors(include_url=False, include_context=False, include_input=False))
    except Invalid as error:
        found = error
    code = found.errors[0].code
    if code == "json_invalid":
        raise LineRejected("malformed_json", found.errors[0].detail)
    raise LineRejected(code, found.detail)


def number_of(line: bytes) -> str | None:
    """The number that a line says it is of, if it can be told; of a line that is right it always can."""
    first = _first_number(line)
    # Said once, and by no key that is written with escapes: then no later one takes its place.
    if first is not None and b"\\u00" not in line and line.count(b'"number"') == 1:
        try:
            return first[1].decode()
        except UnicodeDecodeError:
            return None
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    number = said.get("number") if type(said) is dict else None
    return number if type(number) is str and "\0" not in number and "\n" not in number else None
