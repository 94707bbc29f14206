"""What a reader finds in a PDF of ours: streams unpacked, codes of the subset fonts turned back into characters."""

import base64
import re
import zlib

OBJECT = re.compile(rb"(\d+) 0 obj(.*?)endobj", re.DOTALL)
SHOWN = re.compile(rb"1 0 0 1 [\d.]+ ([\d.]+) Tm|/(F\d\+\d+) [\d.]+ Tf|\(((?:[^()\\]|\\.)*)\) Tj", re.DOTALL)
ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)


def lines_of(pdf: bytes) -> list[list[str]]:
    """The pages, in each the texts in the order in which they were drawn."""
    objects = {int(number): body for number, body in OBJECT.findall(pdf)}
    fonts = {}
    for body in objects.values():
        if name := re.search(rb"/Name /(F\d\+\d+)", body):
            fonts[name[1]] = _characters(_stream(objects[int(re.search(rb"/ToUnicode (\d+)", body)[1])]))
    kids = next(re.search(rb"/Kids \[(.*?)\]", body, re.DOTALL)[1] for body in objects.values() if b"/Kids" in body)
    pages = [objects[int(number)] for number in re.findall(rb"(\d+) 0 R", kids)]
    return [_texts(_stream(objects[int(re.search(rb"/Contents (\d+)", page)[1])]), fonts) for page in pages]


def _stream(body: bytes) -> bytes:
    head, _, rest = body.partition(b"stream")
    data = rest.rpartition(b"endstream")[0].strip()
    if b"ASCII85" in head:
        data = base64.a85decode(data.removesuffix(b"~>"))
    return zlib.decompress(data)


def _characters(table: bytes) -> dict[int, str]:
    return {int(code, 16): chr(int(character, 16)) for code, character in re.findall(rb"<([0-9A-F]{2})> <([0-9A-F]{4})>\n", table)}


def _texts(content: bytes, fonts: dict[bytes, dict[int, str]]) -> list[str]:
    """Pieces that follow each other on one place are one text: a font of many characters is drawn as several."""
    found: list[str] = []
    font: dict[int, str] = {}
    for height, name, text in SHOWN.findall(content):
        if height:
            found.append("")
        elif name:
            font = fonts[name]
        else:
            plain = ESCAPE.sub(lambda match: bytes([int(match[1], 8)]) if match[1].isdigit() else match[1], text)
            found[-1] += "".join(font[code] for code in plain)
    return found
