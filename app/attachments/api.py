"""/attachments: files that letters take with them."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Self
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.attachments.content import EXTENSIONS, in_header
from app.attachments.keep import drop, found, keep
from app.attachments.models import Attachment
from app.attachments.names import disposition
from app.attachments.store import PostgresStore, Store
from app.attachments.upload import FIELD, FORM, LARGEST, received
from app.core.auth import MayReadTemplates, MayWriteTemplates
from app.core.db import SessionDep
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor

router = APIRouter(prefix="/attachments", tags=["templates"], route_class=Guarded)

STORE: Store = PostgresStore()
# Nothing that was uploaded runs in a browser that comes upon it here, whatever it is (nosniff stands on every answer).
SHUT = {"Content-Security-Policy": "default-src 'none'; sandbox", "Cache-Control": "private, no-cache"}


class AttachmentOut(BaseModel):
    """A file as it is kept: `content_type` by its contents, `name` cleaned."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    name: str
    content_type: str
    size: int = Field(description="octets")
    sha256: str = Field(description="of the contents, in hex")
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, row: Attachment) -> Self:
        return cls.model_validate(row.model_dump(exclude={"sha256"}) | {"sha256": row.sha256.hex()})


BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": f"One file of at most {LARGEST >> 20} MiB",
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: {"type": "string", "contentMediaType": "application/octet-stream"}},
                    "required": [FIELD],
                    "additionalProperties": False,
                }
            }
        },
    }
}
THERE: dict[int | str, dict[str, Any]] = {200: {"model": AttachmentOut, "description": "The same bytes are there already: that file"}}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": {kind: {"schema": {"type": "string", "contentMediaType": kind}} for kind in EXTENSIONS}}
}


@router.post("", operation_id="upload_attachment", summary="Upload a file", status_code=201, responses=THERE, openapi_extra=BODY)
async def upload_attachment(request: Request, response: Response, caller: MayWriteTemplates) -> AttachmentOut:
    """A PDF, a picture (PNG, JPEG, GIF, WebP), a text, CSV or iCalendar in UTF-8, a DOCX, XLSX or ODT without macros. What it is, its contents say."""
    async with received(request) as upload, request.app.state.database.transaction() as session:
        row, is_new = await keep(session, STORE, upload, caller)
    response.status_code = 201 if is_new else 200
    return AttachmentOut.of(row)


@router.get("", operation_id="list_attachments", summary="Files, the newest first")
async def list_attachments(session: SessionDep, page: Paging, caller: MayReadTemplates) -> Page[AttachmentOut]:
    query = sa.select(Attachment).order_by(sa.column("id").desc()).limit(page.limit + 1)
    if key := page.key(UUID):
        query = query.where(sa.column("id") < key[0])
    rows = (await session.scalars(query)).all()
    shown = rows[: page.limit]
    return Page(items=[AttachmentOut.of(row) for row in shown], next_cursor=encode_cursor(shown[-1].id) if len(rows) > page.limit else None)


@router.get("/{attachment_id}", operation_id="get_attachment", summary="What is known of a file")
async def get_attachment(attachment_id: UUID, session: SessionDep, caller: MayReadTemplates) -> AttachmentOut:
    return AttachmentOut.of(await found(session, attachment_id))


@router.get("/{attachment_id}/content", operation_id="get_attachment_content", summary="The file itself", response_class=StreamingResponse, responses=CONTENT)
async def get_attachment_content(attachment_id: UUID, request: Request, caller: MayReadTemplates) -> Response:
    """For saving, never for showing: a browser is told to do nothing with it."""
    database = request.app.state.database
    async with database.transaction() as session:
        row = await found(session, attachment_id)
    headers = SHUT | {"Content-Disposition": disposition(row.name), "Content-Length": str(row.size), "ETag": f'"{row.sha256.hex()}"'}
    pieces: AsyncIterator[bytes] = STORE.read(database, row.id)
    return StreamingResponse(pieces, headers=headers, media_type=in_header(row.content_type))


@router.delete("/{attachment_id}", operation_id="delete_attachment", summary="Delete a file that nothing names", status_code=204)
async def delete_attachment(attachment_id: UUID, session: SessionDep, caller: MayWriteTemplates) -> None:
    await drop(session, STORE, attachment_id, caller)
