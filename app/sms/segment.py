"""How a text is cut into short messages: in which alphabet, how many parts, and where the cuts fall."""

from dataclasses import dataclass
from typing import Literal

from app.sms import gsm

Encoding = Literal["GSM7", "LATIN1", "UCS2"]
LongMessages = Literal["udh8", "udh16", "sar", "payload", "refuse"]

# A short message has 140 octets: 160 septets, 140 letters of an octet or 70 UTF-16 units (3GPP TS 23.040, 9.2.3.16).
SINGLE: dict[Encoding, int] = {"GSM7": 160, "LATIN1": 140, "UCS2": 70}
# The joining header takes six octets of every part with an 8-bit reference, seven with a 16-bit one (TS 23.040, 9.2.3.24.1 and .8).
# SAR parameters and message_payload are cut by the SMSC with an 8-bit header before they go on the air, so they count like udh8.
JOINED: dict[Encoding, dict[LongMessages, int]] = {
    "GSM7": {"udh8": 153, "udh16": 152, "sar": 153, "payload": 153, "refuse": 153},
    "LATIN1": {"udh8": 134, "udh16": 133, "sar": 134, "payload": 134, "refuse": 134},
    "UCS2": {"udh8": 67, "udh16": 66, "sar": 67, "payload": 67, "refuse": 67},
}


@dataclass(frozen=True, slots=True)
class Segments:
    """A text as the network counts it. `octets` are the parts' user data without headers, in GSM 7-bit one septet an octet.

    `units` are the septets, letters or UTF-16 units of the whole.
    """

    encoding: Encoding
    octets: tuple[bytes, ...]
    units: int

    @property
    def count(self) -> int:
        """The parts that are billed."""
        return len(self.octets)

    @property
    def parts(self) -> list[str]:
        """The text of each part; joined they are the whole text."""
        if self.encoding == "GSM7":
            return [gsm.decode(octets) for octets in self.octets]
        return [octets.decode("utf-16-be" if self.encoding == "UCS2" else "latin-1", "replace") for octets in self.octets]


def segment(text: str, *, long_messages: LongMessages = "udh8") -> Segments:
    """The parts of a text as a common gateway cuts it: in GSM 7-bit when it fits that alphabet, in UCS-2 otherwise.

    Neither an escape pair of the GSM alphabet nor a surrogate pair of UTF-16 is ever cut in two. With "payload" the parts are
    what will be billed, although one PDU carries them all. A lone surrogate becomes "?": nobody could show it.
    """
    if (septets := gsm.encode(text)) is not None:
        if len(septets) <= 160:
            return Segments("GSM7", (septets,), len(septets))
        return Segments("GSM7", cut_septets(septets, JOINED["GSM7"][long_messages]), len(septets))
    octets = text.encode("utf-16-be", "replace")
    if len(octets) <= 140:
        return Segments("UCS2", (octets,), len(octets) // 2)
    return Segments("UCS2", cut_utf16(octets, 2 * JOINED["UCS2"][long_messages]), len(octets) // 2)


def cut_septets(septets: bytes, size: int, *, fill: int | None = None) -> tuple[bytes, ...]:
    """Parts of at most so many septets; no escape pair is cut in two.

    With `fill`, the parts will be packed behind so many fill bits: none but the last may leave seven bits at its end, which would
    have to become a carriage return in the middle of the text (see `gsm.pack`).
    """
    parts: list[bytes] = []
    start, total = 0, len(septets)
    while start < total:
        end = start + size
        if end < total:
            if fill is not None and _leaves_seven(end - start, fill):
                end -= 1
            if septets[end - 1] == gsm.ESCAPE:
                end -= 1  # the second half of the pair would open the next part
                if fill is not None and _leaves_seven(end - start, fill):
                    end -= 2 if septets[end - 2] == gsm.ESCAPE else 1
        parts.append(septets[start:end])
        start = end
    return tuple(parts)


def _leaves_seven(septets: int, fill: int) -> bool:
    return (fill + 7 * septets) % 8 == 1


def cut_utf16(octets: bytes, size: int) -> tuple[bytes, ...]:
    """Parts of at most so many octets, an even number; no surrogate pair is cut in two."""
    parts: list[bytes] = []
    start = 0
    while start < len(octets):
        end = start + size
        if end < len(octets) and octets[end - 2] & 0xFC == 0xD8:
            end -= 2  # a high surrogate must not lose its other half
        parts.append(octets[start:end])
        start = end
    return tuple(parts)
