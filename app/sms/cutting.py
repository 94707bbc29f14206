"""How one gateway cuts texts: in which alphabets, and into how many parts. Planning counts with it what the wire will send."""

from dataclasses import dataclass, field
from typing import Literal

from app.sms import gsm
from app.sms.default_alphabet import DefaultAlphabet
from app.sms.latin import as_ascii
from app.sms.segment import JOINED, SINGLE, Encoding, LongMessages, Segments, cut_septets, cut_utf16, segment

Transliteration = Literal["off", "ascii"]
COMMON: tuple[Encoding, ...] = ("GSM7", "UCS2")
# Fill bits behind the joining header until a septet begins (TS 23.040, 9.2.3.24). A message_payload is packed as a whole.
_FILL: dict[LongMessages, int | None] = {"udh8": 1, "udh16": 0, "sar": 0, "payload": None, "refuse": None}


@dataclass(frozen=True, slots=True)
class Cutting:
    """The alphabets are tried in their order, and UCS-2 takes whatever comes to it. Two of equal fields cut alike."""

    alphabets: tuple[Encoding, ...] = COMMON
    default_alphabet: str = "gsm0338"
    long_messages: LongMessages = "udh8"
    transliteration: Transliteration = "off"
    null_terminated: bool = False
    # The alphabet of data_coding 0, for whoever writes the parts.
    default: DefaultAlphabet = field(init=False, repr=False, compare=False)
    _is_plain: bool = field(init=False, repr=False, compare=False)
    _narrow: tuple[Encoding, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        default = DefaultAlphabet(self.default_alphabet)
        is_plain = self.alphabets == COMMON and default.name == "gsm0338" and self.transliteration == "off" and not self.null_terminated
        wide = self.alphabets.index("UCS2") if "UCS2" in self.alphabets else len(self.alphabets)
        for name, value in (("default", default), ("_is_plain", is_plain), ("_narrow", self.alphabets[:wide])):
            object.__setattr__(self, name, value)

    @property
    def is_usual(self) -> bool:
        """Whether `segment(text)` counts just the same: what was counted so need not be counted again."""
        return self._is_plain and self.long_messages != "udh16"

    def cut(self, text: str) -> Segments | None:
        """The parts as the wire sends them; None when the text has characters that none of the alphabets can write.

        A text that would need UCS-2 is first tried in Latin letters where the gateway wants that.
        """
        if self._is_plain:
            return segment(text, long_messages=self.long_messages)
        found = self._in_narrow(text)
        if found is None and self.transliteration == "ascii" and self._narrow:
            found = self._in_narrow(as_ascii(text))
        if found is None and "UCS2" in self.alphabets:
            found = self._parts("UCS2", text.encode("utf-16-be", "replace"))
        return found

    def count(self, text: str) -> tuple[Encoding, int]:
        """The alphabet and the billed parts, as `reckon` has them."""
        segments = self.reckon(text)
        return segments.encoding, segments.count

    def reckon(self, text: str) -> Segments:
        """As `cut`; of a text that cannot be written at all, as if "?" stood for what is missing."""
        segments = self.cut(text)
        if segments is None:
            last = self.alphabets[-1]
            segments = self._parts(last, text.encode("latin-1", "replace") if last == "LATIN1" else gsm.encode(gsm.replace_foreign(text)) or b"")
        return segments

    def units_left(self, segments: Segments) -> int:
        """How many more units the last part takes before one part more is billed."""
        width = 2 if segments.encoding == "UCS2" else 1
        if segments.count == 1:
            return max(self._single(segments.encoding) - segments.units, 0)
        return max(self._joined(segments.encoding) - len(segments.octets[-1]) // width, 0)

    def misfits(self, text: str) -> list[int]:
        """Where the characters stand that keep it out of the alphabets before UCS-2: out of the one that lacks the fewest of them.

        Empty where one can write the text, in Latin letters where the gateway wants that, and where there is none."""
        if self._in_narrow(text) is not None or not self._narrow:
            return []
        by_alphabet = []
        for encoding in self._narrow:
            lacking = {character for character in set(text) if not self._writes(encoding, character)}
            by_alphabet.append([position for position, character in enumerate(text) if character in lacking])
        return min(by_alphabet, key=len)

    def _writes(self, encoding: Encoding, character: str) -> bool:
        write = self.default.encode if encoding == "GSM7" else _latin1
        return write(character) is not None or (self.transliteration == "ascii" and write(as_ascii(character)) is not None)

    def _in_narrow(self, text: str) -> Segments | None:
        """In the first alphabet before UCS-2 that can write the whole text."""
        for encoding in self._narrow:
            octets = self.default.encode(text) if encoding == "GSM7" else _latin1(text)
            if octets is not None:
                return self._parts(encoding, octets)
        return None

    def _parts(self, encoding: Encoding, octets: bytes) -> Segments:
        width = 2 if encoding == "UCS2" else 1
        units = len(octets) // width
        if units <= self._single(encoding):
            return Segments(encoding, (octets,), units)
        size = self._joined(encoding)
        if encoding == "GSM7":
            return Segments(encoding, cut_septets(octets, size, fill=_FILL[self.long_messages] if self.default.is_packed else None), units)
        if encoding == "UCS2":
            return Segments(encoding, cut_utf16(octets, 2 * size), units)
        return Segments(encoding, tuple(octets[start : start + size] for start in range(0, len(octets), size)), units)

    def _single(self, encoding: Encoding) -> int:
        """Units of a message of one part."""
        return SINGLE[encoding] - self._taken(encoding)

    def _joined(self, encoding: Encoding) -> int:
        """Units of each part of several."""
        return JOINED[encoding][self.long_messages] - (0 if self.long_messages == "payload" else self._taken(encoding))

    def _taken(self, encoding: Encoding) -> int:
        # A NUL at the end of short_message takes an octet: two septets of packed ones, a whole unit of UTF-16. A message_payload has none.
        return (2 if encoding == "GSM7" and self.default.is_packed else 1) if self.null_terminated else 0


def _latin1(text: str) -> bytes | None:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None
