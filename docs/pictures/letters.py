# ruff: noqa: INP001, S603 - a script beside the docs; the browser is the reader's own
"""Draw the default letters as readers of mail show them: in the light, in the dark, and on a phone. `make letters-pictures`; needs Chromium.

The letters are those that would be sent, with the data below. Each picture stays under 150 KB.
"""

import io
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

from PIL import Image, ImageChops

from app.rendering.compose import Version, variables
from app.rendering.defaults import templates

PICTURES = Path(__file__).resolve().parent / "letters"
LARGEST = 150_000  # bytes
HIGHEST = 2000  # pixels: more than any of these letters has
# name -> width, further options. 0 is dark (Blink's PreferredColorScheme).
VIEWS = {"light": (680, []), "dark": (680, ["--blink-settings=preferredColorScheme=0"]), "phone": (390, [])}

ACCOUNT = SimpleNamespace(
    number="100500",
    name="Анна Петрова",
    balance=Decimal("112.30"),
    credit_limit=Decimal(0),
    currency="RUB",
    tariff="Домашний 100",
    threshold=None,
    status="active",
    timezone="Europe/Moscow",
    attributes={},
)
CHARGES = [
    {"id": "s1", "title": "Домашний интернет 100", "amount": "600.00", "due_on": "2026-12-01"},
    {"id": "s2", "title": "Телевидение «Кино и спорт»", "amount": "249.00", "due_on": "2026-12-01"},
    {"id": "s3", "title": "Аренда роутера", "amount": "99.00", "due_on": "2026-12-05"},
]
AT = datetime(2026, 11, 28, 7, 0, tzinfo=UTC)
LINKS = {"cabinet": "https://cabinet.isp.example", "unsubscribe": "https://isp.example/unsubscribe/x"}
LETTERS = {
    "charges": ("charges.upcoming", {"due_on": "2026-12-01", "total": "849.00", "charges": CHARGES[:2]}),
    "exhausting": (
        "balance.exhausting",
        {"days_left": 3, "exhausts_on": "2026-12-01", "shortfall": "835.70", "recommended_payment": "850.00", "charges": CHARGES},
    ),
}


def main() -> None:
    browser = next((path for name in (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        sys.exit("letters-pictures: Chromium was not found: install it, or name it with CHROMIUM=/path/to/chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        for name, (code, data) in LETTERS.items():
            page = Path(home) / f"{name}.html"
            page.write_text(letter(code, data), "utf-8")
            for view, (width, options) in VIEWS.items():
                picture = PICTURES / f"{name}-{view}.png"
                picture.write_bytes(smaller(shot(browser, page, width, options)))
                size = picture.stat().st_size
                if size > LARGEST:
                    sys.exit(f"letters-pictures: {picture.name} has {size:,} bytes: keep it under {LARGEST:,}")
                sys.stdout.write(f"{picture.name} {size:,} bytes\n")


def letter(code: str, data: dict[str, object]) -> str:
    """The HTML of the default letter in Russian."""
    words = next(one for one in templates() if (one["type"], one["channel"], one["locale"]) == (code, "email", "ru"))
    version = Version(UUID(int=0), 1, "email", "ru", words["subject"], words["text"], words["html"])
    contact = SimpleNamespace(address="anna@example.org", label="")
    return version.compose(variables(ACCOUNT, contact, code, AT, data, AT, LINKS)).html or ""


def shot(browser: str, page: Path, width: int, options: list[str]) -> bytes:
    """A PNG of the page, at twice its size: screens are so."""
    picture = page.with_suffix(".png")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=2", *options]
    size, into = f"--window-size={width},{HIGHEST}", f"--screenshot={picture}"
    subprocess.run([*command, size, into, page.as_uri()], check=True, capture_output=True, timeout=120)
    return picture.read_bytes()


def smaller(picture: bytes) -> bytes:
    """Without the empty rest of the page, and with the few colours that a letter has."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    empty = Image.new("RGB", image.size, image.getpixel((2, image.height - 40)))
    _, _, _, bottom = ImageChops.difference(image, empty).crop((0, 0, image.width, image.height - 40)).getbbox() or (0, 0, 0, image.height)
    made = io.BytesIO()
    image.crop((0, 0, image.width, min(image.height, bottom + 48))).quantize(64).save(made, "PNG", optimize=True)
    return made.getvalue()


if __name__ == "__main__":
    main()
