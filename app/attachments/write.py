"""The files of a letter: those that were uploaded are read, those that are made are made. Two queries at most, whatever the letter has."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import ValidationError

from app.attachments.calendar import as_ics, entry_of
from app.attachments.content import CSV, ICS, PDF, PNG, in_header
from app.attachments.files import File
from app.attachments.keep import MOST_TOGETHER
from app.attachments.names import apart, clean_name
from app.attachments.payment_qr import NoPayee, as_png, payee_of, payload, sum_to_pay
from app.attachments.shapes import PAYMENT_QR, AttachedFileIn, GeneratedFileIn, GeneratedKind, read_specs
from app.attachments.statement import Statement, as_csv, specimen, statement_of
from app.attachments.statement_pdf import as_pdf
from app.attachments.store import PostgresStore, Shelf, Store, TooMuch
from app.attachments.words import Words, words_of
from app.core.db import Executor


class AttachmentMissing(Exception):
    """A file of the letter cannot be had, and trying again will not change that: it was deleted, the brand has no payee, the account is gone,
    or all files together are too large. The message says which."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """What made files are made of. `whose` is the account's id as a text; of a specimen any."""

    statement: Statement
    data: Mapping[str, Any]
    brand: Mapping[str, Any]
    moment: datetime
    words: Words
    whose: str


async def files_of(
    session: Executor,
    specs: Sequence[dict[str, Any]],
    account_id: UUID | None,
    brand_settings: Mapping[str, Any],
    data: Mapping[str, Any],
    moment: datetime,
    locale: str,
    *,
    store: Store | None = None,
    shelf: Shelf | None = None,
) -> list[File]:
    """In the order of the specs, at most 10 MiB; AttachmentMissing when one cannot be had. No two have the same name.

    `specs` are `message.attachments`; `data` is the event's, as stored or as templates have it; without an account (a preview) the made files are specimens.
    A calendar is left out where there is no day to write down. `shelf`, where given, remembers uploaded files between letters."""
    chosen = _read(specs)
    kept = await _uploaded(session, {spec.id for spec in chosen if isinstance(spec, AttachedFileIn)}, store or PostgresStore(), shelf)
    occasion: Occasion | None = None
    if any(isinstance(spec, GeneratedFileIn) for spec in chosen):
        occasion = await _occasion(session, account_id, brand_settings, data, moment, words_of(locale))
    files: list[File] = []
    for spec in chosen:
        if isinstance(spec, AttachedFileIn):
            files.append(_as_said(spec, kept[spec.id]))
        elif occasion is not None and (made := await MADE[spec.kind](occasion)) is not None:
            files.append(made)
    if sum(len(file.data) for file in files) > MOST_TOGETHER:
        raise AttachmentMissing(f"the files of the letter are more than {MOST_TOGETHER >> 20} MiB together")
    return [replace(file, name=name) for file, name in zip(files, _names(files), strict=True)]


def _read(specs: Sequence[dict[str, Any]]) -> list[AttachedFileIn | GeneratedFileIn]:
    try:
        return read_specs(specs)
    except ValidationError:
        raise AttachmentMissing("the list of attachments cannot be read") from None


async def _uploaded(session: Executor, ids: set[UUID], store: Store, shelf: Shelf | None) -> dict[UUID, File]:
    there = shelf.get(ids) if shelf is not None else {}
    if wanted := sorted(ids - there.keys()):
        try:
            fresh = await store.read_whole(session, wanted, MOST_TOGETHER)
        except TooMuch:
            raise AttachmentMissing(f"the files of the letter are more than {MOST_TOGETHER >> 20} MiB together") from None
        if shelf is not None:
            shelf.put(fresh)
        there = there | fresh
    if missing := sorted(str(gone) for gone in ids - there.keys()):
        raise AttachmentMissing(f"the file {missing[0]} is not there any more")
    return there


async def _occasion(session: Executor, account_id: UUID | None, brand: Mapping[str, Any], data: Mapping[str, Any], moment: datetime, words: Words) -> Occasion:
    if account_id is None:
        return Occasion(specimen(moment.date(), words), data, brand, moment, words, "specimen")
    statement = await statement_of(session, account_id, moment)
    if statement is None:
        raise AttachmentMissing("there is no such account any more")
    return Occasion(statement, data, brand, moment, words, str(account_id))


def _as_said(spec: AttachedFileIn, file: File) -> File:
    if spec.name is None:
        return file
    name = spec.name if spec.inline else clean_name(spec.name, file.content_type.partition(";")[0])  # the HTML knows an inline one by just this name
    return replace(file, name=name, inline=spec.inline)


def _names(files: Sequence[File]) -> list[str]:
    """Inline files keep theirs, for the HTML knows them by it; of the others each gets one of its own."""
    fixed = [file.name for file in files if file.inline]
    others = iter(apart([*fixed, *(file.name for file in files if not file.inline)])[len(fixed) :])
    return [file.name if file.inline else next(others) for file in files]


async def _statement_pdf(on: Occasion) -> File:
    made = await asyncio.to_thread(as_pdf, on.statement, on.words)
    return File(f"{on.words('statement_file')} {on.statement.as_of.isoformat()}.pdf", PDF, made)


async def _statement_csv(on: Occasion) -> File:
    return File(f"{on.words('statement_file')} {on.statement.as_of.isoformat()}.csv", in_header(CSV), as_csv(on.statement, on.words))


async def _calendar(on: Occasion) -> File | None:
    entry = entry_of(on.statement, on.data)
    if entry is None:
        return None
    # RFC 6047, 2.4: the method stands in the header as well.
    return File(f"{on.words('calendar_file')}.ics", f"{in_header(ICS)}; method=PUBLISH", as_ics(entry, on.statement, on.words, on.moment, on.whose))


async def _payment_qr(on: Occasion) -> File:
    try:
        text = payload(payee_of(on.brand), on.statement.number, sum_to_pay(on.statement, on.data))
    except NoPayee as error:
        raise AttachmentMissing(str(error)) from None
    return File(PAYMENT_QR, PNG, await asyncio.to_thread(as_png, text), inline=True)


MADE: dict[GeneratedKind, Callable[[Occasion], Awaitable[File | None]]] = {
    "statement_pdf": _statement_pdf,
    "statement_csv": _statement_csv,
    "calendar": _calendar,
    "payment_qr": _payment_qr,
}
