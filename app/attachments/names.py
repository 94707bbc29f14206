"""Names of files: what came with an upload is anybody's text, and ends in headers of letters and on the disks of subscribers."""

import re
import unicodedata
from urllib.parse import quote

from app.attachments.content import EXTENSIONS
from app.attachments.shapes import LONGEST_NAME

# What Windows takes in no name of a file, and a quoted string of a header only escaped.
_UNFIT = re.compile(r'[<>:"|?*]')


def clean_name(name: str, content_type: str) -> str:
    """A name without a path, without characters that cannot be seen (a U+202E turns `gpj.exe` round), with an extension of its content type: at most 255 characters.

    `invoice.exe` that is a PDF becomes `invoice.exe.pdf`."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    seen = "".join(" " if character in "\t\r\n" else character for character in last if character in "\t\r\n" or unicodedata.category(character)[0] != "C")
    words = _UNFIT.sub("_", " ".join(seen.split())).strip(". ") or "file"
    fitting = EXTENSIONS[content_type]
    stem, dot, extension = words.rpartition(".")
    if not dot or f".{extension.lower()}" not in fitting:
        stem, extension = words, fitting[0].removeprefix(".")
    return f"{stem[: LONGEST_NAME - len(extension) - 1].rstrip('. ')}.{extension}"


def apart(names: list[str]) -> list[str]:
    """The same names, of which no two are alike for any file system: `a.pdf`, `a (2).pdf`."""
    taken: set[str] = set()
    found = []
    for name in names:
        stem, dot, extension = name.rpartition(".")
        tried, number = name, 1
        while tried.casefold() in taken:
            number += 1
            tried = f"{stem} ({number}){dot}{extension}" if dot else f"{name} ({number})"
        taken.add(tried.casefold())
        found.append(tried)
    return found


def disposition(name: str) -> str:
    """Content-Disposition of a download (RFC 6266): the name in UTF-8, and something like it for those that read no UTF-8."""
    plain = "".join(character if character.isascii() and character.isprintable() and character not in '"\\%' else "_" for character in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
