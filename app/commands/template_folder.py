"""Templates as a folder of files, so that they can live in git: `<type>/<channel>.<locale>/`, and in it a text file for each part.

    payment.received/email.ru/template.toml    name, layout, published, [options], [[attachments]]
    payment.received/email.ru/subject.txt
    payment.received/email.ru/text.txt
    payment.received/email.ru/body.html        or body.mjml

A text ends with one line end more than the template has: editors and git want it, and a template does not write it.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.commands.ground import BadInput

SOURCES: Mapping[str, str] = {"subject": "subject.txt", "text": "text.txt", "html": "body.html", "mjml": "body.mjml"}
SETTINGS = "template.toml"
KEYS = ("name", "layout", "published", "options", "attachments")
LARGEST = 1024 * 1024  # bytes of a file: ten times what a template may have

TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
PLACE = re.compile(r"(sms|email)\.([A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,4}){0,2})")
Place = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file: `<file>:<line>:<column>: <sentence>`, as compilers say it and editors jump to it."""

    file: Path
    detail: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return f"{where}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Filed:
    """A template as its folder has it. `version` is the body of a new version. `draft`: the folder says that it is not to be published."""

    folder: Path
    place: Place
    name: str | None
    version: dict[str, Any]
    draft: bool = False

    def file_of(self, pointer: str) -> Path:
        """Where a fault at this pointer of the body is to be mended."""
        part = pointer.removeprefix("/").partition("/")[0]
        if not part:
            return self.folder
        return self.folder / SOURCES.get(part, SETTINGS)


@dataclass(slots=True)
class Folder:
    """What was read, and what could not be."""

    templates: list[Filed] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def folder_of(root: Path, place: Place) -> Path:
    kind, channel, locale = place
    if not TYPE.fullmatch(kind) or not PLACE.fullmatch(f"{channel}.{locale}"):
        raise BadInput(f"{kind} {channel} {locale}: no folder can have this name")
    return root / kind / f"{channel}.{locale}"


def write(root: Path, place: Place, name: str, version: Mapping[str, Any]) -> int:
    """Make the files of one template so. Files of parts that it has not are taken away; others are left. Returns how many files have changed."""
    folder = folder_of(root, place)
    wanted = {file: _ended(version[part]) for part, file in SOURCES.items() if version.get(part) is not None}
    wanted[SETTINGS] = _toml(name, version)
    folder.mkdir(parents=True, exist_ok=True)
    changed = 0
    for file in (*SOURCES.values(), SETTINGS):
        path, text = folder / file, wanted.get(file)
        if text is None:
            if path.exists():
                path.unlink()
                changed += 1
        elif not path.exists() or path.read_bytes() != text.encode():
            # Beside it first: a full disk leaves the old file, not half of the new one.
            beside = folder / f".{file}.new"
            beside.write_bytes(text.encode())
            beside.replace(path)
            changed += 1
    return changed


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two versions say the same, whatever system their lines were ended by: git may change that on its way."""
    return _compared(one) == _compared(other)


def read(root: Path) -> Folder:
    """Every template of a folder. Hidden files and what lies beside the folders of types is not ours."""
    if not root.is_dir():
        raise BadInput(f"{root}: there is no such folder")
    found = Folder()
    for kind in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if _leads_out(root, kind, found):
            continue
        if not TYPE.fullmatch(kind.name):
            found.faults.append(Fault(kind, "no notification type has such a name"))
            continue
        for folder in sorted(path for path in kind.iterdir() if not path.name.startswith(".")):
            if _leads_out(root, folder, found):
                continue
            place = PLACE.fullmatch(folder.name)
            if place is None or not folder.is_dir():
                found.faults.append(Fault(folder, "expected a folder named <channel>.<locale>, e.g. sms.ru or email.en-GB"))
                continue
            _read_one(root, folder, (kind.name, place[1], place[2]), found)
    return found


def _leads_out(root: Path, path: Path, found: Folder) -> bool:
    """Whether it is a link that leads out of the folder: what stands there is nobody's template, and may be nobody's business."""
    if path.resolve().is_relative_to(root.resolve()):
        return False
    found.faults.append(Fault(path, "a link that leads out of the folder is not followed"))
    return True


def _read_one(root: Path, folder: Path, place: Place, found: Folder) -> None:
    version: dict[str, Any] = {}
    before, settings = len(found.faults), {}
    parts = {file: part for part, file in SOURCES.items()}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.name not in parts and path.name != SETTINGS:
            found.faults.append(Fault(path, f"no part of a template: there are {', '.join((*SOURCES.values(), SETTINGS))}"))
            continue
        if _leads_out(root, path, found):
            continue
        text = _text(path)
        if isinstance(text, Fault):
            found.faults.append(text)
        elif path.name == SETTINGS:
            settings = _settings(path, text, found.faults)
        else:
            version[parts[path.name]] = _unended(text)
    if not version and len(found.faults) == before:
        found.faults.append(Fault(folder, f"there is no text here: {', '.join(SOURCES.values())}"))
    if len(found.faults) == before:
        name, published = settings.pop("name", None), settings.pop("published", True)
        found.templates.append(Filed(folder, place, name, version | settings, draft=not published))


def _text(path: Path) -> str | Fault:
    try:
        if not path.is_file():
            return Fault(path, "this is no file")
        if path.stat().st_size > LARGEST:
            return Fault(path, "larger than any template may be")
        octets = path.read_bytes()
        text = octets.decode()
    except UnicodeDecodeError as error:
        return Fault(path, "this is no UTF-8", octets.count(b"\n", 0, error.start) + 1)
    except OSError as error:
        return Fault(path, str(error.strerror))
    if "\0" in text:
        line = text[: text.index("\0")]
        return Fault(path, "a NUL character has no place in a text", line.count("\n") + 1, len(line) - line.rfind("\n"))
    return text


def _settings(path: Path, text: str, faults: list[Fault]) -> dict[str, Any]:
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said, _, place = str(error).partition(" (at ")
        numbers = [int(number) for number in re.findall(r"\d+", place)]
        faults.append(Fault(path, said, *(numbers if len(numbers) == 2 else [])))
        return {}
    try:
        json.dumps(settings, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        faults.append(Fault(path, "texts, numbers, true and false alone stand here: put dates in quotes"))
    faults.extend(Fault(path, f"unknown `{key}`: there are {', '.join(KEYS)}") for key in settings if key not in KEYS)
    name = settings.get("name")
    if name is not None and not (isinstance(name, str) and 0 < len(name) <= 200):
        faults.append(Fault(path, "`name` is a text of at most 200 characters"))
    if not isinstance(settings.get("published", True), bool):
        faults.append(Fault(path, "`published` is true or false"))
    return settings


def _ended(text: str) -> str:
    return text + "\n"


def _unended(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _compared(version: Mapping[str, Any]) -> dict[str, Any]:
    sources = {part: version[part].replace("\r\n", "\n") if version.get(part) is not None else None for part in SOURCES}
    return sources | {"layout": version.get("layout"), "options": version.get("options") or {}, "attachments": version.get("attachments") or []}


def _toml(name: str, version: Mapping[str, Any]) -> str:
    return "\n".join(_toml_lines(name, version)) + "\n"


def _toml_lines(name: str, version: Mapping[str, Any]) -> Iterator[str]:
    yield f"name = {_value(name)}"
    if version.get("layout") is not None:
        yield f"layout = {_value(version['layout'])}"
    if version.get("published") is False:
        yield "published = false"
    tables = [("[options]", version.get("options") or {}), *(("[[attachments]]", one) for one in version.get("attachments") or [])]
    for head, table in tables:
        if table:
            yield ""
            yield head
            yield from (f"{key} = {_value(value)}" for key, value in sorted(table.items()))


def _value(value: Any) -> str:
    # A JSON string, number or boolean is one of TOML, too, but for DEL, which TOML 1.0 wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
