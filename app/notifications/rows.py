"""The rows that planning, resending and releasing write, in one place: a message and its line in the outbox are always made together."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import BulkInsert, TogetherInsert
from app.core.ids import new_id
from app.gateways.router import Road
from app.notifications.audience import URGENT, Told
from app.notifications.states import State
from app.rendering.compose import Composed
from app.sms.segment import segment

NOTIFICATIONS = BulkInsert(
    "notification",
    conflict="ON CONFLICT (event_id) DO UPDATE SET decisions = excluded.decisions, at = excluded.at",
    event_id="uuid",
    account_id="uuid",
    type="text",
    decisions="jsonb",
    at="timestamptz",
)
# For reports, as app/gateways/operators.py finds it: by the insert itself, which saves a round trip.
NUMBER = "CAST(substr(message_address, 2) AS bigint)"
OPERATOR = f"""CASE WHEN message_channel = 'sms' AND message_address ~ '^[+][0-9]{{1,15}}$' THEN coalesce(
    (SELECT operator FROM number_range WHERE kind = 'ported' AND first = {NUMBER}),
    (SELECT CASE WHEN last >= {NUMBER} THEN operator END FROM number_range WHERE kind = 'range' AND first <= {NUMBER} ORDER BY first DESC LIMIT 1)) END"""
MESSAGES = BulkInsert(
    "message",
    computed={"operator": OPERATOR},
    id="uuid",
    event_id="uuid",
    account_id="uuid",
    type="text",
    channel="text",
    contact_id="uuid",
    address="text",
    locale="text",
    template_id="uuid",
    template_version="int",
    gateway="text",
    route="text",
    sender="text",
    price="numeric",
    state="text",
    urgent="bool",
    not_before="timestamptz",
    expires_at="timestamptz",
    subject="text",
    text="text",
    html="text",
    encoding="text",
    parts="smallint",
    resend_of="uuid",
    leads="bool",
    brand="text",
    attachments="jsonb",
    updated_at="timestamptz",
)
OUTBOX = BulkInsert(
    "outbox",
    message_id="uuid",
    state="text",
    reason="text",
    channel="text",
    gateway="text",
    priority="smallint",
    parts="smallint",
    not_before="timestamptz",
    send_until="timestamptz",
    expires_at="timestamptz",
    tries="smallint",
    attempts="smallint",
    after_message="uuid",
)
# Lines that later events may join have a column more.
JOINABLE = BulkInsert(
    "outbox",
    message_id="uuid",
    state="text",
    reason="text",
    channel="text",
    gateway="text",
    priority="smallint",
    parts="smallint",
    not_before="timestamptz",
    send_until="timestamptz",
    expires_at="timestamptz",
    tries="smallint",
    attempts="smallint",
    after_message="uuid",
    coalesce_key="text",
)
CHANGES = BulkInsert("message_change", id="uuid", message_id="uuid", at="timestamptz", state="text", reason="text", detail="text")
TESTS = sa.text("UPDATE message SET test = true WHERE id = ANY(CAST(:ids AS uuid[]))")
STOPPED = sa.text("UPDATE outbox SET stopped_at = not_before WHERE message_id = ANY(CAST(:ids AS uuid[]))")
DECIDED = TogetherInsert(NOTIFICATIONS, MESSAGES, OUTBOX)


def cut(road: Road | None, text: str) -> tuple[str, int]:
    """The alphabet of an SMS, and the parts that are billed, on this road."""
    if road is not None and road.cutting is not None:
        return road.cutting.count(text)
    common = segment(text)
    return common.encoding, common.count


def cut_for(road: Road | None, words: Composed) -> Composed:
    """The words with the alphabet and the number of parts that this road will make of them. They are taken as cut in the common way."""
    if road is None or road.cutting is None or words.encoding is None:
        return words
    encoding, parts = cut(road, words.text)
    return replace(words, encoding=encoding, parts=parts)


def recut_for(road: Road | None, words: Composed) -> Composed:
    """The same for words that were cut for another road before."""
    if words.encoding is None:
        return words
    encoding, parts = cut(road, words.text)
    return replace(words, encoding=encoding, parts=parts)


def attachments_text(words: Composed) -> str | None:
    """What goes with the letter, as the table has it; nothing for nearly all of them."""
    return orjson.dumps(words.attachments, default=str).decode() if words.attachments else None


class Beside(Protocol):
    """What a step writes together with the messages: nothing, and with no statement, where it has nothing."""

    async def write(self, session: AsyncSession) -> None: ...


@dataclass(slots=True)
class Rows:
    """Gathered in Python, written by two statements, and by more where something rare is among them."""

    notifications: list[tuple[Any, ...]] = field(default_factory=list)
    messages: list[tuple[Any, ...]] = field(default_factory=list)
    outbox: list[tuple[Any, ...]] = field(default_factory=list)
    joinable: list[tuple[Any, ...]] = field(default_factory=list)
    changes: list[tuple[Any, ...]] = field(default_factory=list)
    stopped: list[UUID] = field(default_factory=list)
    tests: list[UUID] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)

    def decide(self, event_id: UUID, account_id: UUID, code: str, decisions: list[dict[str, Any]], now: datetime) -> None:
        self.notifications.append((event_id, account_id, code, orjson.dumps(decisions).decode(), now))

    def message(
        self,
        *,
        event_id: UUID | None,
        account_id: UUID,
        code: str,
        told: Told,
        words: Composed,
        road: Road | None,
        now: datetime,
        resend_of: UUID | None = None,
        stopped: bool = False,
        message_id: UUID | None = None,
        leads: bool = False,
        after: UUID | None = None,
        test: bool = False,
    ) -> UUID:
        """A message and its line in the outbox: `held` when its hour is still to come, or when a stop stands over it. Its id.

        `leads`: others may wait for what becomes of it; `after`: it waits for that one."""
        message_id, channel = message_id or new_id(), told.contact.channel
        gateway, route, sender, price = (road.name, road.route, road.sender, road.price) if road is not None else (None, None, None, None)
        state, reason = (State.HELD, told.waits or "quiet_hours") if told.not_before > now else (State.HELD, "stopped") if stopped else (State.QUEUED, None)
        if reason == "stopped":
            self.stopped.append(message_id)
        if test:
            self.tests.append(message_id)
        self.messages.append(
            (
                message_id,
                event_id,
                account_id,
                code,
                channel,
                told.contact.id,
                told.contact.address,
                words.locale,
                words.template_id,
                words.version,
                gateway,
                route,
                sender,
                price,
                state.value,
                told.priority == URGENT,
                told.not_before,
                told.expires_at,
                words.subject,
                words.text,
                words.html,
                words.encoding,
                words.parts,
                resend_of,
                leads or None,
                words.brand,
                attachments_text(words),
                now,
            )
        )
        line = (message_id, state.value, reason, channel, gateway, told.priority, words.parts, told.not_before, told.send_until, told.expires_at, 0, 0, after)
        if told.coalesce_key is None:
            self.outbox.append(line)
        else:
            self.joinable.append((*line, told.coalesce_key))
        if state is State.HELD:
            self.change(message_id, now, State.HELD, reason)
        return message_id

    def change(self, message_id: UUID, at: datetime, state: State, reason: str | None, detail: str | None = None) -> None:
        self.changes.append((new_id(), message_id, at, state.value, reason, detail))

    async def write(self, session: AsyncSession) -> None:
        await DECIDED.run(session, self.notifications, self.messages, self.outbox)
        for step in self.beside:
            await step.write(session)
        await JOINABLE.run(session, with_keys_once(self.joinable))
        await CHANGES.run(session, self.changes)
        if self.stopped:  # a column of its own would cost every message something
            await session.execute(STOPPED, {"ids": self.stopped})
        if self.tests:
            await session.execute(TESTS, {"ids": self.tests})


def with_keys_once(lines: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of lines with the same key only the newest has it: the others can take no more."""
    newest = {line[-1]: line[0] for line in lines}
    return [line if newest[line[-1]] == line[0] else (*line[:-1], None) for line in lines]
