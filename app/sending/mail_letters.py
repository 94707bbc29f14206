"""From a claimed message to its letter: as whom it is written, the headers that mail programs look for, and the files that go with it.

A letter whose files cannot be made does not go without them: the words speak of them. What cannot be had just now (the database is away) is tried again and
costs no attempt; a fault of ours while a file is made costs one; a file that is not there any more ends the message as `failed`, `attachment_missing`.
"""

from dataclasses import replace
from typing import Any

import orjson
import sqlalchemy as sa

from app.attachments.files import File
from app.attachments.store import Shelf
from app.attachments.write import AttachmentMissing, files_of
from app.core.clock import now
from app.core.db import Database, is_away, is_conflict
from app.core.ids import NOBODY
from app.rendering.brands import BUILT_IN, Brands, Chosen
from app.rendering.enclosures import opened
from app.rendering.looks import brands_of
from app.sending.claim import Claimed
from app.sending.smtp.mime import Letter, NotReady, WithoutFile

OF_MESSAGE = sa.text("SELECT account_id, locale FROM message WHERE id = :id")
OURS = "vestnik"


class Letters:
    """Of one station. Brands are those of its last look; one that came since is looked for by itself."""

    def __init__(self, database: Database) -> None:
        self._database, self._brands, self._shelf = database, Brands(), Shelf()

    def follow(self, brands: Brands) -> None:
        self._brands = brands

    def letter(self, claimed: Claimed, sender: str, refusal: str | None = None, return_path: str | None = None) -> Letter:
        """The message as a letter; `sender` is the gateway's, and gives way to the brand's.

        The same message has the same Message-ID whenever it is sent (RFC 5322, 3.6.4): a receiver can tell a repetition. It is in the gateway's domain, and
        is the message's id, which was stored before anything was sent.
        `refusal`: the link that mail programs offer beside a letter (RFC 2369, 3.2), and follow with one click (RFC 8058).
        `return_path`: where it comes back to when it cannot be delivered; none: to the sender."""
        domain = sender.rpartition("@")[2].rstrip("> ")
        headers = {"List-Unsubscribe": f"<{refusal}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"} if refusal else {}
        plain = Letter(
            key=claimed.id,
            to=claimed.address,
            sender=sender,
            subject=claimed.subject or "",
            text=claimed.text,
            html=claimed.html,
            # What postmasters' tools count complaints by.
            headers={**headers, "Feedback-ID": f"{claimed.type}:{claimed.brand or 'default'}:{OURS}"},
            message_id=f"<{claimed.id}@{domain}>",
            date=now(),
            return_path=return_path,
        )
        known = claimed.brand is None or claimed.brand in self._brands.by_name
        if known and claimed.attachments is None:
            return _by(plain, self._brands.named(claimed.brand))
        return replace(plain, finish=lambda: self._finished(claimed, plain))

    async def _finished(self, claimed: Claimed, letter: Letter) -> Letter:
        """The letter with its brand and its files. NotReady, or WithoutFile."""
        try:
            async with self._database.transaction() as session:
                brand = (await brands_of(session)).named(claimed.brand) if claimed.brand is not None else BUILT_IN
                files: list[File] = []
                if claimed.attachments is not None:
                    specs, data = opened(orjson.loads(claimed.attachments))
                    row: Any = (await session.execute(OF_MESSAGE, {"id": claimed.id})).one()
                    settings = brand.settings.model_dump(mode="json")
                    files = await files_of(
                        session, specs, None if row.account_id == NOBODY else row.account_id, settings, data, now(), row.locale, shelf=self._shelf
                    )
        except AttachmentMissing as error:
            raise WithoutFile(str(error)) from None
        except Exception as error:
            if is_away(error) or is_conflict(error):
                raise NotReady(f"{type(error).__name__}: {error}"[:200]) from None
            raise
        return replace(_by(letter, brand), files=tuple(files), finish=None)


def _by(letter: Letter, brand: Chosen) -> Letter:
    sender, reply_to = brand.settings.sender, brand.settings.reply_to
    return replace(letter, sender=sender or letter.sender, reply_to=reply_to) if sender or reply_to else letter
