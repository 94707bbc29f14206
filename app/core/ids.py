"""UUIDv7: ids made by the application that sort by the time they were made (RFC 9562, 5.7)."""

from datetime import datetime
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

NOBODY = UUID(int=0)  # the account of what is said to no account: a test message with made-up data


def new_id() -> UUID:
    return uuid7()


def new_id_text() -> str:
    """The same as a text, for rows that are only written down: a quarter of the time."""
    return str(uuid_utils.uuid7())


def first_id_at(moment: datetime) -> UUID:
    """The smallest id that can have been made at this moment: bounds of time become bounds of id."""
    milliseconds = max(0, int(moment.timestamp() * 1000))
    return UUID(int=(milliseconds & 0xFFFFFFFFFFFF) << 80 | 0x7 << 76 | 0x2 << 62)


def parse_id(text: str) -> UUID | None:
    """A UUID in its canonical form, or nothing."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if str(value) == text.lower() else None
