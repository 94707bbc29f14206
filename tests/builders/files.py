"""Files as operators upload them."""

import io
import zipfile
from typing import Any

import httpx

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
PNG += b"\x00\x00\x00\x0bIDATx\x9cc`\x00\x02\x00\x00\x05\x00\x01z^\xab?\x00\x00\x00\x00IEND\xaeB`\x82"
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
WEBP = b"RIFF\x10\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00"
PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\ntrailer\n<<>>\n%%EOF\n"
ICS = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nEND:VCALENDAR\r\n"


def an_archive(*names: str, stored_first: str = "") -> bytes:
    """A ZIP with these entries; `stored_first` is the text of the first one, which is then not packed."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, name in enumerate(names):
            if n == 0 and stored_first:
                archive.writestr(zipfile.ZipInfo(name), stored_first, zipfile.ZIP_STORED)
            else:
                archive.writestr(name, f"contents of {name}")
    return written.getvalue()


def a_docx(*more: str) -> bytes:
    return an_archive("[Content_Types].xml", "_rels/.rels", "word/document.xml", *more)


def an_xlsx(*more: str) -> bytes:
    return an_archive("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml", *more)


def an_odt(*more: str) -> bytes:
    return an_archive("mimetype", "content.xml", *more, stored_first="application/vnd.oasis.opendocument.text")


async def uploaded(api: httpx.AsyncClient, data: bytes, name: str = "price.pdf", **more: Any) -> dict[str, Any]:
    """What the API says of a file that it has taken."""
    answer = await api.post("/attachments", files={"file": (name, data, "application/octet-stream")}, **more)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()
