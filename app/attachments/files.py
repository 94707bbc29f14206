"""A file as it goes out with a letter."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """`inline`: shown within the HTML, which names it `cid:<name>`; else attached."""

    name: str
    content_type: str
    data: bytes
    inline: bool = False
