"""What an SMSC takes for its default alphabet, data_coding 0: GSM 7-bit as a rule, but not always (SMPP 3.4, 5.2.19).

Whatever it is, on the air the text is in GSM 7-bit: what that alphabet lacks does not fit, and septets are counted.
"""

from codecs import charmap_encode

from app.sms import gsm

_UNPACKED, _PACKED = "gsm0338", "gsm_packed"


class DefaultAlphabet:
    """Whether a text can be written in it, and its octets. `name` is gsm0338, gsm_packed or a Python codec of one octet a character."""

    __slots__ = ("_codes", "is_gsm", "is_packed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_packed = name == _PACKED
        self.is_gsm = self.is_packed or name == _UNPACKED
        self._codes = {} if self.is_gsm else _codes(name)

    def encode(self, text: str) -> bytes | None:
        """The septets on the air, one an octet, or None when a character cannot be written in both alphabets."""
        septets = gsm.encode(text)
        if septets is None or self.is_gsm:
            return septets
        return septets if all(ord(character) in self._codes for character in text) else None

    def write(self, septets: bytes, fill: int = 0) -> bytes:
        """The octets for the SMSC, of septets that `encode` gave; packed, they begin after so many fill bits."""
        if self.is_packed:
            return gsm.pack(septets, fill)
        return septets if self.is_gsm else charmap_encode(gsm.decode(septets), "strict", self._codes)[0]


def _codes(name: str) -> dict[int, int]:
    """The octet for each character of the GSM alphabet that the codec writes as one."""
    codes: dict[int, int] = {}
    for character in gsm.CHARACTERS:
        try:
            octets = character.encode(name)
            back = octets.decode(name)
        except UnicodeError:
            continue
        if len(octets) == 1 and back == character:
            codes[ord(character)] = octets[0]
    return codes
