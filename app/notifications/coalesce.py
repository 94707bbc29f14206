"""Several events of one type, one message: five services disconnected together are one SMS.

    first event of a type with `coalesce_seconds`    a message, held for that time, and then until its hours
    later ones, as long as it is held                join it: their decisions name its message
    release                                          the words are made of the data of all of them

The message that waits for a contact and a type has a key in the outbox, and a key is there once. Release takes it away: what comes later begins anew.
Whoever joins has locked the account, so that nobody else makes a message with the same key; and he locks the message, as release does: either he was in
time, and release sees his event, or he waits for release and finds the message gone. If he dies, his event was never planned, and waits on.

Reminders of our own are not put together: a newer one takes the place of those that wait (`reminders.supersede`), and each is looked at by itself.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson
import sqlalchemy as sa

from app.accounts.window import next_open, open_until
from app.catalogue.registry import TypeRules
from app.core.db import BulkInsert, Executor
from app.notifications.audience import Around, Choice, Reached, Told, why_closed
from app.notifications.delivery import first_of
from app.notifications.reminders import is_ours

MOST = 100  # events that one message tells: what comes then begins another one

# As it is in the index, so that its predicate is seen to hold.
WAITING = sa.text("""
SELECT coalesce_key, message_id, not_before, expires_at, (SELECT count(*) + 1 FROM notification_event n WHERE n.message_id = o.message_id) AS number
FROM outbox o WHERE coalesce_key = ANY(CAST(:keys AS text[])) AND coalesce_key IS NOT NULL AND state = 'held' ORDER BY message_id FOR UPDATE
""")
JOINED = BulkInsert("notification_event", conflict="ON CONFLICT DO NOTHING", event_id="uuid", message_id="uuid")
# The newest news is of use for as long as if it had come alone.
PROLONG = sa.text("""
WITH v AS (SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:ends AS timestamptz[])) AS v(id, expires_at)), line AS (
    UPDATE outbox o SET expires_at = v.expires_at FROM v WHERE o.message_id = v.id AND o.message_id = ANY(CAST(:ids AS uuid[]))
)
UPDATE message m SET expires_at = v.expires_at FROM v WHERE m.id = v.id AND m.id = ANY(CAST(:ids AS uuid[]))
""")
TOGETHER = sa.text("""
SELECT n.message_id, e.id, e.time, CAST(e.data AS text) AS data FROM notification_event n JOIN event e ON e.id = n.event_id
WHERE n.message_id = ANY(CAST(:messages AS uuid[])) ORDER BY n.message_id, e.time, e.id
""")
# Nobody finds them any more: a message may have their key.
FULL = sa.text("UPDATE outbox SET coalesce_key = NULL WHERE message_id = ANY(CAST(:ids AS uuid[]))")


class Coming(Protocol):
    """What is asked of an event here."""

    @property
    def type(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def account(self) -> Any: ...


@dataclass(slots=True)
class Leader:
    """A message that waits, and that later events may join."""

    message_id: UUID
    not_before: datetime
    expires_at: datetime
    number: int = 1  # of the events that it tells


@dataclass(frozen=True, slots=True)
class Joined:
    """Told by a message that waits already."""

    contact: Reached
    leader: Leader

    def decision(self, code: str) -> dict[str, Any]:
        """As the notification keeps it."""
        return {
            "type": code,
            "channel": self.contact.channel,
            "contact_id": str(self.contact.id),
            "outcome": "planned",
            "reason": "coalesced",
            "message_id": str(self.leader.message_id),
            "not_before": self.leader.not_before.isoformat(),
        }


@dataclass(slots=True)
class Together:
    """The messages that the events of a batch may join: those that wait, which are locked, and those that the batch makes."""

    _by_key: dict[str, Leader] = field(default_factory=dict)
    _joined: list[tuple[UUID, UUID]] = field(default_factory=list)
    _prolonged: dict[UUID, datetime] = field(default_factory=dict)
    _full: list[UUID] = field(default_factory=list)

    @classmethod
    async def of(cls, session: Executor, events: Iterable[Coming], types: Mapping[str, TypeRules], contacts: Mapping[UUID, Sequence[Reached]]) -> "Together":
        """For these events, whose accounts are locked. One query where one of them is of a type that is put together, a second one when somebody waits for
        more of a chain of channels, else none."""
        together = cls()
        coming = {(event.account.id, event.type) for event in events if is_put_together(types.get(event.type), event.source)}
        if await together._look(session, [key_of(contact.id, code) for account_id, code in coming for contact in contacts.get(account_id, ())]):
            chains = [(account_id, code) for account_id, code in coming if types[code].options.delivery == "chain"]
            heads = [
                (account_id, leader.message_id)
                for account_id, code in chains
                for contact in contacts.get(account_id, ())
                if (leader := together._by_key.get(key_of(contact.id, code))) is not None
            ]
            await together._look(session, [key_of(contact.id, head) for account_id, head in heads for contact in contacts[account_id]])
        return together

    async def _look(self, session: Executor, keys: Sequence[str]) -> bool:
        """Whether there are any."""
        rows = (await session.execute(WAITING, {"keys": sorted(keys)})).all() if keys else []
        self._by_key |= {key: Leader(*leader) for key, *leader in rows}
        return bool(rows)

    def place(self, event_id: UUID, source: str, rules: TypeRules | None, told: Told, around: Around, after: UUID | None = None) -> Told | Joined:
        """The message that tells this event as well, if there is one; else the same, waiting for what may come.

        `after`: in a chain of channels, the message that it follows. Only what follows the same one is put together."""
        if rules is None or not is_put_together(rules, source):
            return told
        leader = self._by_key.get(key := key_of(told.contact.id, after or rules.code))
        if leader is not None and leader.number >= MOST:
            self._full.append(leader.message_id)
            leader = None
        if leader is None:
            return gathering(told, rules, around) if after is None else replace(told, coalesce_key=key)
        leader.number += 1
        self._joined.append((event_id, leader.message_id))
        if told.expires_at > leader.expires_at:
            leader.expires_at = self._prolonged[leader.message_id] = told.expires_at
        return Joined(told.contact, leader)

    def lead(self, message_id: UUID, told: Told) -> None:
        """A message of this batch, which the events behind it join if it may be joined."""
        if told.coalesce_key is not None:
            self._by_key[told.coalesce_key] = Leader(message_id, told.not_before, told.expires_at)

    async def write(self, session: Executor) -> None:
        """Before the lines of new messages, which may have the keys of those that are full."""
        if self._full:
            await session.execute(FULL, {"ids": self._full})
        await JOINED.run(session, self._joined)
        if self._prolonged:
            await session.execute(PROLONG, {"ids": list(self._prolonged), "ends": list(self._prolonged.values())})


def is_put_together(rules: TypeRules | None, source: str) -> bool:
    return rules is not None and bool(rules.coalesce) and not is_ours(rules.code, source)


def key_of(contact_id: UUID, what: str | UUID) -> str:
    """`what`: the type, or in a chain of channels the message that it follows."""
    return f"{contact_id} {what}"


def gathering(told: Told, rules: TypeRules, around: Around) -> Told:
    """The same, with the time that the first of several waits for the others, and the hours looked at after that."""
    opening, gathered = around.opening(rules, told.contact.channel, told.contact.id), around.now + rules.coalesce
    begins = next_open(gathered, opening) or told.not_before
    waits = "coalescing" if begins == gathered else why_closed(gathered, opening)
    until, key = open_until(begins, opening), key_of(told.contact.id, rules.code)
    return replace(told, not_before=begins, send_until=until, expires_at=begins + rules.ttl, waits=waits, coalesce_key=key)


def first_told(rules: TypeRules | None, source: str, choices: Sequence[Choice], around: Around) -> Sequence[Choice]:
    """Those of the choices that go first, as they are when nothing waits that they might join: by these it is counted."""
    going = first_of(rules, choices)
    if rules is None or not is_put_together(rules, source):
        return going
    return [gathering(choice, rules, around) if isinstance(choice, Told) else choice for choice in going]


@dataclass(frozen=True, slots=True)
class News:
    """What one message has to tell: of the events that were put together, oldest first, the newest has the word."""

    time: datetime
    data: dict[str, Any]
    earlier: tuple[dict[str, Any], ...] = ()

    @property
    def count(self) -> int:
        return len(self.earlier) + 1


async def news_of(session: Executor, rows: Sequence[Any], undone: Collection[UUID]) -> dict[UUID, News]:
    """By message, for messages (id, event_id, time, data: those of the event that made it) which others have joined: without the events that are undone,
    of which each message has others. One query."""
    if not rows:
        return {}
    told: dict[UUID, list[tuple[datetime, str]]] = {row.id: [] if row.event_id in undone else [(row.time, row.data)] for row in rows}
    for message_id, event_id, time, data in await session.execute(TOGETHER, {"messages": list(told)}):
        if event_id not in undone:
            told[message_id].append((time, data))
    return {message_id: _news(said) for message_id, said in told.items()}


def _news(told: list[tuple[datetime, str]]) -> News:
    *earlier, (time, data) = sorted(told, key=lambda one: one[0])
    return News(time, orjson.loads(data), tuple(orjson.loads(text) for _, text in earlier))
