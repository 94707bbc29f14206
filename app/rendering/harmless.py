"""What a value may say where escaping is not enough: as an address, and within a style. Pure."""

import re

# An address of the web, of mail or of a telephone; or one without a scheme, which is part of a longer one.
_SCHEMES = frozenset({"http", "https", "mailto", "tel", "sms", "cid"})
_SCHEME = re.compile(r"[^/?#:]*:")
_BLANK = re.compile(r"[\x00-\x20\x7f-\xa0\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
# Colours, sizes and the names of fonts: nothing that ends the declaration, and no function but those of colours.
_STYLE = re.compile(r"(?:rgba?\([\d ,.%/]{1,40}\)|[#\w .,%'\"-]){0,200}")


def as_link(value: str) -> str:
    """The address, or nothing where a mail program would run it: `javascript:...`, whatever stands between its letters."""
    address = _BLANK.sub("", value)
    scheme = _SCHEME.match(address)
    return address if scheme is None or scheme[0][:-1].lower() in _SCHEMES else ""


def as_style(value: str) -> str:
    """The value, or nothing where it is more than one value: `red; background: url(...)`."""
    return value if _STYLE.fullmatch(value) else ""
