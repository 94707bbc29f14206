"""If-Match (RFC 9110, 13.1.1): an update says which version it has read."""

from typing import Annotated

from fastapi import Header

from app.core.errors import MatchRequired, StaleVersion

IfMatch = Annotated[str | None, Header(description="The ETag that was read; needed for an update of something that exists")]


def etag(revision: int) -> str:
    return f'"{revision}"'


def require_match(given: str | None, revision: int) -> None:
    """MatchRequired without the header, StaleVersion when it names another version."""
    if given is None:
        raise MatchRequired
    if given.strip() != "*" and etag(revision) not in [tag.strip().removeprefix("W/") for tag in given.split(",")]:
        raise StaleVersion
