"""Addresses as one SMSC wants them, and back: senders with a type by their form, subscribers' numbers in the profile's form.

Types and plans: SMPP 3.4, 5.2.5 and 5.2.6. What a profile forces wins over what the form says.
"""

import re

import phonenumbers

from app.gateways.profile import Profile
from app.gateways.smpp import SmppSettings
from app.sending.outcome import Refused
from app.sms import gsm

_E164 = re.compile(r"\+[1-9][0-9]{2,17}")
_NUMERIC_SENDER = re.compile(r"\+?[0-9]{3,}")
_WRITTEN = re.compile(r"\+?[0-9]{3,22}")
_SHORT_CODE = 8  # digits of the longest one
_TOO_LARGE = 10**18  # what has fewer digits a bigint surely holds; E.164 has fifteen
_LEAST_NATIONAL = 7  # a shorter rest after the national prefix is a short code that begins like it
_INTERNATIONAL = b"\x01\x01"
_REMEMBERED = 1000


class Senders:
    """The source address of submit_sm for each sender name: type, plan, octets and NUL; kept, for there are few of them."""

    def __init__(self, settings: SmppSettings) -> None:
        self._profile = settings.profile
        self._default = settings.sender or ""
        self._allowed = frozenset(_bare(name) for name in settings.profile.allowed_senders)
        self._known: dict[str, bytes | Refused] = {}

    def source(self, name: str | None) -> bytes | Refused:
        """The octets of a sender, the gateway's own one where none is named. An empty one leaves the choice to the SMSC."""
        name = name or self._default
        source = self._known.get(name)
        if source is None:
            source = self._source(name)
            if len(self._known) < _REMEMBERED:
                self._known[name] = source
        return source

    def _source(self, name: str) -> bytes | Refused:
        profile = self._profile
        if not name:
            kind, octets = (0, 0), b""
        elif self._allowed and _bare(name) not in self._allowed:
            return Refused("sender_not_allowed", detail=f"the sender {name} is not among allowed_senders of the profile")
        elif _NUMERIC_SENDER.fullmatch(name):
            digits = _bare(name)
            if len(digits) > profile.numeric_max:
                return Refused("bad_sender", detail=f"a numeric sender has at most {profile.numeric_max} digits here")
            is_short = digits == name and len(digits) <= _SHORT_CODE
            kind, octets = (profile.short_code_ton, profile.short_code_npi) if is_short else (1, 1), digits.encode()
        else:
            written = _alphanumeric(name, profile)
            if isinstance(written, Refused):
                return written
            kind, octets = (5, 0), written
        if profile.source_ton is not None and profile.source_npi is not None:
            kind = profile.source_ton, profile.source_npi
        return bytes(kind) + octets + b"\0"


class Destinations:
    """The destination address of submit_sm for each subscriber's number: type, plan, octets and NUL."""

    def __init__(self, profile: Profile) -> None:
        kind = bytes((profile.dest_ton, profile.dest_npi))
        self._head = kind + {"e164": b"", "e164_plus": b"+", "00": b"00", "national": b""}[profile.dest_format]
        self._country = profile.country_code if profile.dest_format == "national" else ""
        self._national = kind + profile.national_prefix.encode()

    def destination(self, address: str) -> bytes | None:
        """The octets of a number given as E.164 with "+"; None when it is no such number.

        In national form a number of another country goes as plain E.164 with type 1 and plan 1: 00 or 810 before it would mean
        something else in each country, while the type says everywhere what the digits are.
        """
        if not _E164.fullmatch(address):
            return None
        if not self._country:
            return self._head + address[1:].encode() + b"\0"
        if address.startswith(self._country, 1):
            return self._national + address[1 + len(self._country) :].encode() + b"\0"
        return _INTERNATIONAL + address[1:].encode() + b"\0"


def digits_of(written: str, profile: Profile) -> int | None:
    """The E.164 digits of a subscriber's number as the SMSC writes it in receipts and inbound messages; None when it is no number.

    Any of the forms of `dest_format` is understood, with or without "+", and a national number with no prefix at all. 81312345678 may be a Japanese number or, after the 8 of
    the long-distance call, one without its country code: the form that the profile names is believed unless the numbering
    plans allow the other one alone.
    """
    written = written.strip()
    if not _WRITTEN.fullmatch(written):
        return None
    if written[0] == "+":
        return _within(written[1:])
    if written.startswith("00"):
        return _within(written[2:])
    prefix, is_national = profile.national_prefix, profile.dest_format == "national"
    if not written.startswith(prefix) or not (prefix or is_national):
        bare = profile.country_code + written
        is_bare = not written.startswith(profile.country_code) and not _exists(written) and _exists(bare)
        return _within(bare if is_bare else written)
    domestic = profile.country_code + written[len(prefix) :]
    likely, other = (domestic, written) if is_national and len(written) - len(prefix) >= _LEAST_NATIONAL else (written, domestic)
    return _within(other if not _exists(likely) and _exists(other) else likely)


def _bare(name: str) -> str:
    return name[1:] if _NUMERIC_SENDER.fullmatch(name) and name[0] == "+" else name


def _alphanumeric(name: str, profile: Profile) -> bytes | Refused:
    # Whatever the octets of the field are, on the air a sender is in the GSM alphabet.
    septets = gsm.encode(name) if name.isprintable() else None
    octets = septets
    if septets is not None and profile.addr_charset != "gsm0338":
        try:
            octets = name.encode(profile.addr_charset)
        except UnicodeEncodeError:
            octets = None
    if septets is None or octets is None or b"\0" in octets:  # "@" is 0x00 in the GSM alphabet and would end the field
        return Refused("bad_sender", detail=f"the sender {name!r} cannot be written in {profile.addr_charset}")
    if len(septets) > profile.alphanumeric_max:  # 3GPP TS 23.040, 9.1.2.5: eleven septets, and those of the extension table count twice
        return Refused("bad_sender", detail=f"an alphanumeric sender has at most {profile.alphanumeric_max} characters here")
    return octets


def _within(digits: str) -> int | None:
    number = int(digits) if digits else 0
    return number if 0 < number < _TOO_LARGE else None


def _exists(digits: str) -> bool:
    """Whether some country's numbering plan has this number. Costs about 25 microseconds: asked for ambiguous ones alone."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(f"+{digits}"))
    except phonenumbers.NumberParseException:
        return False
