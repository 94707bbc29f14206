"""Lists: `limit` and an opaque `cursor` in, `{"items", "next_cursor"}` out."""

import base64
import binascii
import json
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from app.core.errors import field_invalid

T = TypeVar("T")


class Page(BaseModel, Generic[T]):
    """One page of a list. `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


class PageQuery:
    """Where to go on: `after` is what the last page's cursor held."""

    def __init__(self, limit: int, cursor: str | None) -> None:
        self.limit = limit
        self.after: list[Any] | None = decode_cursor(cursor) if cursor is not None else None

    def key(self, *kinds: type) -> list[Any] | None:
        """The cursor's values when they are of these kinds (a cursor comes from outside, too)."""
        if self.after is None:
            return None
        if len(self.after) != len(kinds):
            raise bad_cursor()
        try:
            return [kind(value) if isinstance(value, str | int) else _refuse() for kind, value in zip(kinds, self.after, strict=True)]
        except (ValueError, TypeError, OverflowError, AttributeError):
            raise bad_cursor() from None


async def paging(  # not for waiting: what is no coroutine is run in a thread, which costs more than all that it does
    limit: Annotated[int, Query(ge=1, le=500, description="At most so many items")] = 50,
    cursor: Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before")] = None,
) -> PageQuery:
    return PageQuery(limit, cursor)


Paging = Annotated[PageQuery, Depends(paging)]


def encode_cursor(*values: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([str(v) if not isinstance(v, int) else v for v in values]).encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise bad_cursor() from None
    if not isinstance(values, list) or any(isinstance(v, str) and "\0" in v for v in values):
        raise bad_cursor()
    return values


def bad_cursor() -> Exception:
    return field_invalid(("query", "cursor"), "bad_cursor", "The cursor is not one of ours: start again without it.")


def _refuse() -> Any:
    raise ValueError
