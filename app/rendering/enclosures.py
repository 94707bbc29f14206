"""What goes with a letter, as its message keeps it until the letter is sent: the list of its version, the logo of its brand, and of what they are made.

    [{"kind": "file", "id": ...}, {"kind": "payment_qr"}, {"kind": "data", "data": {...}}]

Files are made when the letter goes out. They are made of the data that its words were made of, which later may be others: a sum in the text and another one
in the payment code would cost somebody money.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DATA = "data"
UPLOADED = "file"


def enclosed(specs: Sequence[Mapping[str, Any]], logo: Mapping[str, Any] | None, data: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """The list for the message; nothing for a letter without files. `data` as the event has them."""
    wanted = [*specs, logo] if logo is not None else [*specs]
    if any(spec["kind"] != UPLOADED for spec in wanted):
        wanted.append({"kind": DATA, "data": data})
    return wanted or None


def opened(kept: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], Mapping[str, Any]]:
    """What to attach, and the data to make it of."""
    data: Mapping[str, Any] = next((spec["data"] for spec in kept if spec["kind"] == DATA), {})
    return [dict(spec) for spec in kept if spec["kind"] != DATA], data
