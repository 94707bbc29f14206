"""The GSM 7-bit default alphabet and its extension table (3GPP TS 23.038, 6.2.1), one octet a septet as most of SMPP carries it, or packed."""

import re
from codecs import charmap_build, charmap_encode

ESCAPE = 0x1B
_RETURN = 0x0D
BASIC = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
EXTENSION = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E, "|": 0x40, "€": 0x65}

# Every character of a text: the escape is none.
CHARACTERS = BASIC.replace("\x1b", "") + "".join(EXTENSION)

# A charmap of exactly 256 places is the fast kind. U+FFFE fills the places without a character (and itself comes out as the last one,
# 0xFF). The escape itself is no character of a text: a bare one must force UCS-2.
_PLAIN = charmap_build(BASIC.replace("\x1b", "\ufffe") + "\ufffe" * 128)
_ESCAPED = charmap_build(BASIC + "\ufffe" * 128)
_EXPAND = {ord(character): "\x1b" + BASIC[code] for character, code in EXTENSION.items()}
_FOREIGN = re.compile("[^" + re.escape(CHARACTERS) + "]")
_EXTENSION_OF = {code: character for character, code in EXTENSION.items()}


def encode(text: str) -> bytes | None:
    """The text in septets, one an octet (an extension character takes two), or None when some character is not of this alphabet."""
    try:
        septets = charmap_encode(text, "strict", _PLAIN)[0]
        return None if 0xFF in septets else septets
    except UnicodeEncodeError:
        if _FOREIGN.search(text):
            return None
        return charmap_encode(text.translate(_EXPAND), "strict", _ESCAPED)[0]


def decode(septets: bytes) -> str:
    """The text of septets, one an octet. Never fails: what the tables do not know becomes a space (TS 23.038, 6.2.1.1) or U+FFFD."""
    if ESCAPE not in septets:
        return "".join(BASIC[code] if code < 128 else "\ufffd" for code in septets)
    text: list[str] = []
    codes = iter(septets)
    for code in codes:
        if code == ESCAPE:
            text.append(_EXTENSION_OF.get(next(codes, ESCAPE), " "))
        else:
            text.append(BASIC[code] if code < 128 else "\ufffd")
    return "".join(text)


def pack(septets: bytes, fill: int = 0) -> bytes:
    """Eight septets in seven octets, the first in the lowest bits (TS 23.038, 6.1.2.1), behind so many fill bits.

    A length in octets cannot say whether seven bits at the end are nothing or an "@": they become a carriage return, which nobody
    sees (TS 23.038, 6.1.2.3.1).
    """
    if (fill + 7 * len(septets)) % 8 == 1:
        septets += bytes((_RETURN,))
    bits = 0
    for septet in reversed(septets):
        bits = bits << 7 | septet
    return (bits << fill).to_bytes((fill + 7 * len(septets) + 7) // 8, "little")


def unpack(octets: bytes, fill: int = 0) -> bytes:
    """The septets, one an octet, of what `pack` made; a carriage return that only fills the last octet is left out."""
    bits = int.from_bytes(octets, "little") >> fill
    count = max(8 * len(octets) - fill, 0) // 7
    septets = bytes(bits >> 7 * index & 0x7F for index in range(count))
    return septets[:-1] if septets.endswith(b"\r") and (fill + 7 * count) % 8 == 0 else septets


def foreign_characters(text: str) -> list[str]:
    """Every character that this alphabet lacks, as often and in the order as they stand in the text."""
    return _FOREIGN.findall(text)


def replace_foreign(text: str) -> str:
    """The text with "?" for every character that this alphabet lacks."""
    return _FOREIGN.sub("?", text)
