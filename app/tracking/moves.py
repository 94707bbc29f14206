"""What is known of a message moves it: of one in several parts when all of them are known, of one that was tried twice whichever try it is about."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import sqlalchemy as sa

from app.core import metrics
from app.core.db import Executor
from app.notifications.states import State, before
from app.sending.late import UNNEEDED

# message -> part -> what was said of it, in order of time
Known = dict[UUID, dict[int, list[tuple[str, str | None]]]]

MOVE = sa.text("""
UPDATE message SET state = :state, reason = :reason, updated_at = :now
WHERE id = ANY(CAST(:ids AS uuid[])) AND state = ANY(CAST(:before AS text[])) RETURNING channel, coalesce(gateway, 'none'), type
""")
# Two binds that store the last two parts of a message at once do not see each other's: whoever misses a part waits for whoever else has missed one and
# has not committed yet, and looks again. A statement of its own, for a statement sees nothing that was committed after it had begun.
ONE_BY_ONE = sa.text("SELECT FROM message WHERE id = ANY(CAST(:ids AS uuid[])) ORDER BY id FOR NO KEY UPDATE")
PARTS = sa.text("""
SELECT message_id, part, array_agg(state ORDER BY at) AS states, array_agg(reason ORDER BY at) AS reasons FROM receipt
WHERE message_id = ANY(CAST(:ids AS uuid[])) AND status = 'matched' AND state IS NOT NULL GROUP BY message_id, part
""")
TRIES = sa.text("""
SELECT message_id, max(parts) AS parts, bool_or(is_whole) AS is_taken, bool_or(is_begun) AS is_begun FROM (
    SELECT message_id, max(parts) AS parts, bool_and(outcome = 'accepted') AND count(*) = max(parts) AS is_whole, bool_or(outcome = 'accepted') AS is_begun
    FROM submission WHERE message_id = ANY(CAST(:ids AS uuid[])) GROUP BY message_id, n
) tries GROUP BY message_id
""")


@dataclass(frozen=True, slots=True)
class Home:
    """The submission that a receipt speaks of."""

    message_id: UUID
    part: int
    parts: int


@dataclass(frozen=True, slots=True)
class News:
    """A state reported for one part of a message; no state: still on its way."""

    home: Home
    state: str | None
    reason: str | None


async def revisit(session: Executor, ids: Sequence[UUID], moment: datetime) -> None:
    """Of messages that were tried twice: one try that was taken is enough, and so are receipts for it. A second try that still waits, or waits again, is
    not needed when so much as a part of the first is known to have been taken."""
    tries = {row.message_id: row for row in (await session.execute(TRIES, {"ids": list(ids)})).all()}
    taken = [message_id for message_id, row in tries.items() if row.is_taken]
    begun = [message_id for message_id, row in tries.items() if row.is_begun and not row.is_taken]
    for unneeded, reason in ((taken, "no_answer"), (begun, "partial")):
        if unneeded:
            await session.execute(UNNEEDED, {"ids": unneeded, "reason": reason, "now": moment})
    await move_to(session, {(State.ACCEPTED, None): taken}, moment)
    known = await known_parts(session, list(tries))
    await move_to(session, by_state(states_of(known, {message_id: row.parts for message_id, row in tries.items()})), moment)


async def move(session: Executor, news: Sequence[News], moment: datetime) -> None:
    """Move the messages that the news is about; of a long message only when all its parts are known."""
    targets: dict[tuple[str, str | None], list[UUID]] = defaultdict(list)
    several: list[News] = []
    for item in news:
        if item.home.parts > 1:
            several.append(item)
        elif item.state is None:
            targets[State.ACCEPTED, None].append(item.home.message_id)  # a sign of life of what was in doubt; no other state allows it
        else:
            targets[item.state, None if item.state == State.DELIVERED else item.reason].append(item.home.message_id)
    if final := [item for item in several if item.state is not None]:
        for target, ids in by_state(await _whole(session, final)).items():
            targets[target] += ids
    await move_to(session, targets, moment)


async def move_to(session: Executor, targets: Mapping[tuple[str, str | None], list[UUID]], moment: datetime) -> None:
    # Bad news first: when both came in one flush, the delivery is the later truth and may overwrite it.
    for (state, reason), ids in sorted(targets.items(), key=lambda target: (target[0][0] == State.DELIVERED, str(target[0]))):
        if ids:
            values = {"state": state, "reason": reason, "ids": ids, "before": before(State(state)), "now": moment}
            moved = Counter(await session.execute(MOVE, values))
            for (channel, gateway, kind), number in moved.items():
                metrics.MESSAGES.labels(channel, gateway, kind, state).inc(number)


async def _whole(session: Executor, news: Sequence[News]) -> dict[UUID, tuple[str, str | None]]:
    """The states of messages of several parts, with the news."""
    count = {item.home.message_id: item.home.parts for item in news}
    whole = states_of(await _known_with(session, news), count)
    if missing := count.keys() - whole.keys():
        await session.execute(ONE_BY_ONE, {"ids": list(missing)})
        whole |= states_of(await _known_with(session, [item for item in news if item.home.message_id in missing]), count)
    return whole


async def _known_with(session: Executor, news: Sequence[News]) -> Known:
    """What is known of these messages. What was parked is not among the matched ones yet."""
    known = await known_parts(session, list({item.home.message_id for item in news}))
    for item in news:
        assert item.state is not None
        known[item.home.message_id][item.home.part].append((item.state, item.reason))
    return known


async def known_parts(session: Executor, ids: list[UUID]) -> Known:
    """The last words that are known of each part, in order of time."""
    known: Known = defaultdict(lambda: defaultdict(list))
    for row in (await session.execute(PARTS, {"ids": ids})).all():
        known[row.message_id][row.part] += zip(row.states, row.reasons, strict=True)
    return known


def states_of(known: Known, count: Mapping[UUID, int]) -> dict[UUID, tuple[str, str | None]]:
    """Delivered when all parts are; the first bad part's state once every part is final."""
    whole: dict[UUID, tuple[str, str | None]] = {}
    for message_id, parts in known.items():
        if len(parts) >= count[message_id]:
            bad = bad_parts(parts)
            whole[message_id] = bad[0] if bad else (State.DELIVERED, None)
    return whole


def bad_parts(parts: Mapping[int, Sequence[tuple[str, str | None]]]) -> list[tuple[str, str | None]]:
    """The last words of the parts that were never delivered, in the order of the parts."""
    return [told[-1] for _, told in sorted(parts.items()) if State.DELIVERED not in dict(told)]


def by_state(states: Mapping[UUID, tuple[str, str | None]]) -> dict[tuple[str, str | None], list[UUID]]:
    targets: dict[tuple[str, str | None], list[UUID]] = defaultdict(list)
    for message_id, target in states.items():
        targets[target].append(message_id)
    return targets
