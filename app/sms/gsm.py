"""The GSM 7-bit default alphabet and its extension table (3GPP TS 23.038, 6.2.1), one octet a septet: SMPP carries it unpacked."""

import re
from codecs import charmap_build, charmap_encode

ESCAPE = 0x1B
BASIC = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
EXTENSION = {"\f": 0x0A, "^": 0x14, "{": 0x28, "}": 0x29, "\\": 0x2F, "[": 0x3C, "~": 0x3D, "]": 0x3E, "|": 0x40, "€": 0x65}

# A charmap of exactly 256 places is the fast kind. U+FFFE fills the places without a character (and itself comes out as the last one,
# 0xFF). The escape itself is no character of a text: a bare one must force UCS-2.
_PLAIN = charmap_build(BASIC.replace("\x1b", "\ufffe") + "\ufffe" * 128)
_ESCAPED = charmap_build(BASIC + "\ufffe" * 128)
_EXPAND = {ord(character): "\x1b" + BASIC[code] for character, code in EXTENSION.items()}
_FOREIGN = re.compile("[^" + re.escape(BASIC.replace("\x1b", "") + "".join(EXTENSION)) + "]")
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


def foreign_characters(text: str) -> list[str]:
    """Every character that this alphabet lacks, as often and in the order as they stand in the text."""
    return _FOREIGN.findall(text)
