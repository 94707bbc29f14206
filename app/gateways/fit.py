"""What has to fit together in a profile. Each function raises ValueError with a sentence that says what to change."""

import difflib
import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from cryptography import x509

from app.sms import gsm

if TYPE_CHECKING:
    from app.gateways.profile import Profile, Tlv

MINUTES_OF_DAY = 1440
PEM = "-----BEGIN "
# What the product writes itself: two of one tag in a PDU are for the SMSC to choose from.
ALWAYS_OURS = {0x020C: "sar_msg_ref_num", 0x020E: "sar_total_segments", 0x020F: "sar_segment_seqnum", 0x0424: "message_payload"}
_SHOWN_UNKNOWN, _LONGEST_KEY = 10, 64


def refuse_unknown(given: Any, known: Iterable[str]) -> Any:
    """What was given, if it has none but known keys."""
    known = sorted(known)
    unknown = sorted(str(key)[:_LONGEST_KEY] for key in given if key not in known) if isinstance(given, dict) else []
    if unknown:
        named, more = unknown[:_SHOWN_UNKNOWN], len(unknown) - _SHOWN_UNKNOWN
        meant = [f"{near[0]} for {key}" for key in named if (near := difflib.get_close_matches(key.lower(), known, n=1))]
        sentence = f"unknown profile key {', '.join(named)}{f' and {more} more' if more > 0 else ''}; known keys: {', '.join(known)}"
        raise ValueError(f"{sentence}; did you mean {', '.join(meant)}?" if meant else sentence)
    return given


def least_before_most(profile: Any, *pairs: tuple[str, str]) -> None:
    for least, most in pairs:
        if getattr(profile, least) > getattr(profile, most):
            raise ValueError(f"{least} is greater than {most}: raise {most}, or lower {least}")


def refuse_private_keys(value: Any) -> None:
    """A profile is shown to everybody who may read gateways: a key in it would be no secret any more."""
    if isinstance(value, str) and "PRIVATE KEY" in value:
        raise ValueError(
            "a private key must not stand in the profile, which is shown to whoever reads it: put it into a file on the worker's machine, and its path here"
        )
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            refuse_private_keys(item)


def a_path(value: str) -> str:
    if value.startswith(PEM):
        raise ValueError("write the path of a PEM file on the worker's machine here, not its contents")
    if not value or any(ord(character) < 32 for character in value):
        raise ValueError("write the path of a PEM file on the worker's machine, without line breaks")
    return value


def path_or_certificates(value: str) -> str:
    """A PEM file's path, or certificates in PEM that can be read."""
    if not value.lstrip().startswith(PEM):
        return a_path(value)
    try:
        x509.load_pem_x509_certificates(value.encode())
    except ValueError:
        raise ValueError("these are no certificates in PEM: copy them whole, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----") from None
    return value


def an_address(value: str) -> str:
    try:
        ip_address(value)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address: write an address of the worker's machine, as 192.0.2.7") from None
    return value


def tls_fits(profile: "Profile") -> None:
    if profile.client_key is not None and profile.client_cert is None:
        raise ValueError("client_key is the key of client_cert: give client_cert, too, or leave client_key out")
    if not profile.tls and (useless := [key for key in ("ca", "client_cert", "sni") if getattr(profile, key) is not None]):
        raise ValueError(f"{', '.join(useless)} would do nothing, and the password would travel in the clear: set tls to true, or leave {useless[0]} out")


def receiver_fits(profile: "Profile") -> None:
    if profile.bind_mode != "tx_rx" and (profile.rx_host is not None or profile.rx_port is not None):
        raise ValueError("rx_host and rx_port are the receiver's of a pair: set bind_mode to tx_rx, or leave them out")


def day_has_room(spans: list[str]) -> None:
    """A blackout leaves some minute of the day for a bind."""
    dark: set[int] = set()
    for span in spans:
        begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in span.split("-"))
        dark.update(range(begin, end) if begin < end else (*range(begin, MINUTES_OF_DAY), *range(end)))
    if len(dark) == MINUTES_OF_DAY:
        raise ValueError("blackout takes the whole day: to stop a gateway, pause or disable it")


def alphabets_fit(profile: "Profile") -> None:
    """An SMSC that finds the same data_coding for two alphabets shows one of them as garbage."""
    coding, alphabets = profile.data_coding, profile.alphabets
    if len(set(alphabets)) < len(alphabets):
        raise ValueError("alphabets names one of them twice")
    for one, other in (("GSM7", "UCS2"), ("LATIN1", "UCS2"), ("GSM7", "LATIN1")):
        is_the_same = (one, other, profile.default_alphabet) == ("GSM7", "LATIN1", "latin1")
        if {one, other} <= set(alphabets) and getattr(coding, one) == getattr(coding, other) and not is_the_same:
            raise ValueError(f"data_coding has the same octet for {one} and {other}: give each its own, or leave one of them out of alphabets")
    if profile.flash_by == "data_coding" and {"GSM7", "UCS2"} <= set(alphabets) and coding.FLASH_GSM7 == coding.FLASH_UCS2:
        raise ValueError("data_coding has the same octet for FLASH_GSM7 and FLASH_UCS2: give each its own")


def words_differ(stop: list[str], start: list[str]) -> None:
    bare = [{word.strip().casefold() for word in words} for words in (stop, start)]
    if "" in bare[0] | bare[1]:
        raise ValueError("a word of stop_words or start_words is blank")
    if both := sorted(bare[0] & bare[1]):
        raise ValueError(f"{both[0]!r} stands in stop_words and in start_words: leave it in one of them")


def tlvs_fit(profile: "Profile") -> None:
    ours = dict(ALWAYS_OURS)
    if profile.user_message_reference:
        ours[0x0204] = "user_message_reference: set it to false to send your own"
    if profile.more_messages_to_send:
        ours[0x0426] = "more_messages_to_send: set it to false to send your own"
    if profile.flash_by == "tlv":
        ours[0x0005] = "dest_addr_subunit, because flash_by is tlv"
    seen: set[int] = set()
    for tlv in profile.tlvs:
        if tlv.tag in ours:
            raise ValueError(f"TLV 0x{tlv.tag:04X} is written by the product itself ({ours[tlv.tag]})")
        if tlv.tag in seen:
            raise ValueError(f"TLV 0x{tlv.tag:04X} stands in tlvs twice: use by_type for several values of one tag")
        seen.add(tlv.tag)


def tlv_fits(tlv: "Tlv") -> None:
    if tlv.type == "int" and tlv.length not in (1, 2, 4, 8):
        raise ValueError("length of an int is 1, 2, 4 or 8 octets: say which")
    if tlv.value is None and not tlv.by_type and tlv.source is None:
        raise ValueError("nothing says what to send: give value, by_type or source")
    if (tlv.source == "type" and tlv.type != "cstr") or (tlv.source == "message_id" and tlv.type == "int"):
        raise ValueError(f"source {tlv.source} is text: set type to cstr")
    if tlv.source == "message_id" and 0 < tlv.length < (needed := 37 if tlv.type == "cstr" else 16):
        raise ValueError(f"a message id takes {needed} octets: raise length, or set it to 0")
    for value in (tlv.value, *tlv.by_type.values()):
        if value is not None:
            _value_fits(value, tlv)


def _value_fits(value: str | int, tlv: "Tlv") -> None:
    if tlv.type == "int":
        if not isinstance(value, int) or not 0 <= value < 256**tlv.length:
            raise ValueError(f"{_short(value)} does not fit: write a number from 0 to {256**tlv.length - 1}, or raise length")
        return
    if not isinstance(value, str):
        raise ValueError(f"{value} is a number: write it in quotes, or set type to int")  # noqa: TRY004 - pydantic tells ValueErrors to the caller
    if tlv.type == "cstr":
        if "\0" in value or not value.isascii():
            raise ValueError(f"{_short(value)} is no cstr: write ASCII, or the octets in hex with type octets")
        size = len(value) + 1
    else:
        if not re.fullmatch(r"([0-9A-Fa-f]{2})*", value):
            raise ValueError(f"{_short(value)} are no octets: write pairs of hexadecimal digits, as 0a1B")
        size = len(value) // 2
    if tlv.length and size > tlv.length:
        raise ValueError(f"{_short(value)} takes {size} octets{' with its NUL' if tlv.type == 'cstr' else ''}, and length is {tlv.length}")


def _short(value: str | int) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def sender_fault(name: str, profile: "Profile") -> str | None:
    """Why this sender could never go out here, or None."""
    if profile.allowed_senders and name not in profile.allowed_senders:
        return "it is not in allowed_senders: add it there, or take one of them"
    if re.fullmatch(r"\+?[0-9]{3,}", name):
        return f"a numeric sender has at most {profile.numeric_max} digits here" if len(name.removeprefix("+")) > profile.numeric_max else None
    septets = gsm.encode(name)
    if septets is None:
        return "it has characters that are not of the GSM alphabet: write it in Latin letters, digits and signs"
    if profile.addr_charset == "gsm0338":
        if 0 in septets:
            return "@ is the octet 0 in the GSM alphabet and would end the field: write it without"
        size = len(septets)
    else:
        try:
            size = len(name.encode("latin-1" if profile.addr_charset == "latin1" else "ascii"))
        except UnicodeEncodeError:
            return f"it cannot be written in {profile.addr_charset}: change it, or addr_charset if the SMSC takes another"
    return f"an alphanumeric sender has at most {profile.alphanumeric_max} characters here" if size > profile.alphanumeric_max else None
