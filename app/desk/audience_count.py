"""Who would get this: how many accounts a template could tell today, and what it would cost.

The accounts are counted by the rule that planning goes by (`accounts.preferences`), written as SQL; parts and cost are those of some of them, scaled up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.suppressions import DEAD
from app.catalogue.registry import TypeRules, rules_of
from app.catalogue.types import VERIFICATION
from app.core.auth import MayReadTemplates
from app.core.config import Settings
from app.core.errors import Unavailable
from app.core.http import Guarded
from app.core.limits import Rate
from app.core.money import price_string
from app.desk.audience_shapes import NOTES, AudienceFilter, AudienceIn, AudienceNote, AudienceOut, AudienceSampleOut
from app.desk.preview import Killed
from app.desk.preview_case import account_seen, data_of, of_job
from app.desk.preview_words import Stored, look_of, stored
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES
from app.notifications.plan import ACCOUNTS
from app.notifications.rows import cut
from app.rendering.compose import nearest_locale


def said(*path: str) -> str:
    """SQL of what a subscriber's preferences say at this place, as a text; a step in quotes, a parameter or a column."""
    steps = ", ".join(f"CAST({step} AS text)" if step[0] == ":" or "." in step else f"'{step}'" for step in path)
    return f"p.document #>> ARRAY[{steps}]"


router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

COUNTS = Rate("audience", 3, 6)  # of one key: each looks at every account
SAMPLE = 200  # accounts
PATIENCE = "30s"
# Every account is looked at: loops over indexes would be the wrong way, and tables without statistics would lead the planner right into it.
FOR_ALL = ("SET LOCAL enable_nestloop = off", "SET LOCAL work_mem = '64MB'")
CANCELLED = "57014"  # query_canceled: PostgreSQL, Appendix A

# `accounts.preferences.refusal`, line by line, for one type and channel. `{who}` narrows the accounts.
TOLD = f"""
SELECT a.id, coalesce(p.document ->> 'locale', a.locale) AS locale, c.address
FROM account a JOIN contact c ON c.account_id = a.id LEFT JOIN account_preference p ON p.account_id = a.id
WHERE c.channel = :channel AND (c.origin = 'billing' OR c.verified_at IS NOT NULL OR CAST(:is_code AS bool))
  AND a.status <> 'erased' AND (a.status <> 'closed' OR CAST(:mandatory AS bool)) {{who}}
  AND NOT EXISTS (
    SELECT FROM suppression s WHERE s.address = c.address AND s.channel = :channel AND (s.until IS NULL OR s.until > now())
    AND (s.reason = ANY(CAST(:dead AS text[])) OR NOT CAST(:mandatory AS bool) OR CAST(:is_code AS bool))
  )
  AND (CAST(:mandatory AS bool) OR (p.account_id IS NULL AND CAST(:by_default AS bool)) OR (p.account_id IS NOT NULL
    AND {said("types", ":type", "enabled")} IS DISTINCT FROM 'false'
    AND {said("types", ":type", "channels", ":channel")} IS DISTINCT FROM 'false'
    AND {said("contacts", "c.id", "enabled")} IS DISTINCT FROM 'false'
    AND {said("contacts", "c.id", "types", ":type")} IS DISTINCT FROM 'false'
    AND (
      {said("types", ":type", "channels", ":channel")} = 'true'
      OR {said("contacts", "c.id", "types", ":type")} = 'true'
      OR (CAST(:is_default AS bool) AND (NOT CAST(:opt_in AS bool) OR {said("types", ":type", "enabled")} = 'true'))
    )
  ))
"""
COUNT = """
SELECT locale, count(*) AS accounts, CAST(sum(messages) AS bigint) AS messages
FROM (SELECT id, locale, count(*) AS messages FROM ({told}) t GROUP BY id, locale) per_account GROUP BY locale
"""
# Always the same ones of the same accounts: asked again, the answer is the same. By a hash, for an id begins with the time at which it was made.
SAMPLED = """
SELECT id, array_agg(address ORDER BY address) AS addresses FROM ({told}) t WHERE locale = ANY(CAST(:locales AS text[]))
GROUP BY id ORDER BY uuid_hash(id), id LIMIT :most
"""
THINNED = " AND (uuid_hash(a.id) & CAST(:mask AS int)) = 0"
PUBLISHED = sa.text("SELECT locale FROM template WHERE type = :type AND channel = :channel AND published_version IS NOT NULL")


@router.post("/{template_id}/audience", operation_id="count_template_audience", summary="Who would get this: accounts, parts and cost, on today's data")
async def count_audience(template_id: UUID, given: AudienceIn, request: Request, caller: MayReadTemplates) -> AudienceOut:
    """Nothing is sent. The accounts are counted, in half a minute at most; parts and cost are estimated from 200 of them."""
    state = request.app.state
    await state.limits.admit([(COUNTS, caller.name)])
    try:
        async with state.database.transaction() as session:
            for setting in (f"SET LOCAL statement_timeout = '{PATIENCE}'", *FOR_ALL):
                await session.execute(sa.text(setting))
            version = await stored(session, template_id, given.version)
            found = await counted(session, version, rules_of(version.kind), given.filter, state.settings.locale)
            look = await look_of(session, version.fields, {})
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != CANCELLED:
            raise
        raise Unavailable("Counting took longer than half a minute: narrow the filter, or ask when less is going on.", code="audience_too_slow") from None
    answer = await state.previews.render(
        version.job | look | {"cases": [case_in(state.settings, version, row, addresses[0]) for row, addresses in found.sample]}
    )
    async with state.database.transaction() as session:
        costs = await priced(session, version, found.sample, {} if isinstance(answer, Killed) else answer)
    return _shown(version, found, costs)


@dataclass(frozen=True, slots=True)
class Found:
    accounts: int
    messages: int
    others: int  # accounts that another template speaks to
    sample: Sequence[tuple[Any, list[str]]]  # accounts, as rows, each with its addresses


async def counted(session: AsyncSession, version: Stored, rules: TypeRules, wanted: AudienceFilter, default_locale: str) -> Found:
    """How many there are, and some of them."""
    who, values = wanted.sql
    is_default = version.channel in rules.default_channels
    values |= {
        "type": rules.code,
        "channel": version.channel,
        "mandatory": rules.mandatory,
        "is_code": rules.code == VERIFICATION,
        "is_default": is_default,
        "opt_in": rules.options.opt_in,
        "by_default": is_default and not rules.options.opt_in,
        "dead": list(DEAD),
    }
    rows = (await session.execute(sa.text(COUNT.format(told=TOLD.format(who=who))), values)).all()
    known = {*(await session.execute(PUBLISHED, {"type": rules.code, "channel": version.channel})).scalars(), version.locale}
    mine = [row for row in rows if nearest_locale(row.locale, default_locale, known) == version.locale]
    accounts, everybody = sum(row.accounts for row in mine), sum(row.accounts for row in rows)
    # A power of two that leaves some 400 to 800 of them: so few that sorting them costs nothing, so many that 200 are there.
    mask = (1 << max(0, (accounts // (2 * SAMPLE)).bit_length() - 1)) - 1
    chosen = sa.text(SAMPLED.format(told=TOLD.format(who=who + THINNED)))
    values |= {"mask": mask, "locales": [row.locale for row in mine], "most": SAMPLE}
    addresses = {row.id: row.addresses for row in (await session.execute(chosen, values)).all()} if mine else {}
    sample = [(row, addresses[row.id]) for row in (await session.execute(ACCOUNTS, {"ids": list(addresses)})).all()]
    return Found(accounts, sum(row.messages for row in mine), everybody - accounts, sample)


def case_in(settings: Settings, version: Stored, row: Any, address: str) -> dict[str, Any]:
    """An account of the sample, and an event of the type as it could happen to it."""
    contact = {"address": address, "label": ""}
    return of_job(settings, account_seen(row), contact, data_of(version.kind.code, version.kind.data_schema, None, row))


@dataclass(slots=True)
class Costs:
    """Of the messages of the sample."""

    messages: int = 0
    failed: int = 0
    unpriced: int = 0
    parts: int = 0
    cost: Decimal = Decimal(0)


async def priced(session: AsyncSession, version: Stored, sample: Sequence[tuple[Any, list[str]]], answer: Mapping[str, Any]) -> Costs:
    """What the messages to these accounts would take, on the roads of now. `answer` is empty when nothing could be rendered."""
    costs, router = Costs(), await Roads().look(session)
    asks = router.asks_operator and version.channel == "sms"
    operators = await operators_of(session, [address for _, addresses in sample for address in addresses]) if asks else {}
    texts = answer.get("texts") or [None] * len(sample)
    for (row, addresses), text in zip(sample, texts, strict=True):
        attributes = orjson.loads(row.attributes_json) if router.asks_attributes else NO_ATTRIBUTES
        for address in addresses:
            costs.messages += 1
            if text is None:
                costs.failed += 1
                continue
            if version.channel != "sms":
                continue
            road = router.choose("sms", version.kind.code, address, row.id, attributes, operators.get(address))
            parts = cut(road, text)[1]
            costs.parts += parts
            if road is None or road.price is None:
                costs.unpriced += 1
            else:
                costs.cost += parts * road.price
    return costs


def _shown(version: Stored, found: Found, costs: Costs) -> AudienceOut:
    rendered = costs.messages - costs.failed
    is_told = version.channel == "sms" and rendered > 0
    scale = Decimal(found.messages) / rendered if rendered else Decimal(0)
    return AudienceOut(
        template_id=version.template_id,
        version=version.number,
        type=version.kind.code,
        channel=version.channel,
        locale=version.locale,
        accounts=found.accounts,
        messages=found.messages,
        accounts_in_other_words=found.others,
        parts=round(costs.parts * scale) if is_told else None,
        cost=price_string((costs.cost * scale).quantize(Decimal("0.01"))) if is_told and costs.unpriced < rendered else None,
        sample=AudienceSampleOut(accounts=len(found.sample), messages=costs.messages, failed=costs.failed, unpriced=costs.unpriced),
        notes=[_note(code, found, costs) for code in _notes(version, found, costs)],
    )


def _notes(version: Stored, found: Found, costs: Costs) -> Iterator[str]:
    rules = rules_of(version.kind)
    yield "preferences_of_now"
    yield "own_event"
    if found.sample and version.channel == "sms":
        yield "scaled_up" if found.accounts > len(found.sample) else "example_data"
    if costs.unpriced:
        yield "no_price"
    if costs.failed:
        yield "render_failed"
    if not rules.enabled:
        yield "type_disabled"
    if version.channel not in rules.channels:
        yield "not_its_channel"
    if rules.options.delivery != "all":
        yield "one_channel_after_another"


def _note(code: str, found: Found, costs: Costs) -> AudienceNote:
    figures = {"sample": len(found.sample), "messages": costs.messages, "failed": costs.failed, "unpriced": costs.unpriced}
    detail, detail_ru = (said.format(**figures) for said in NOTES[code])
    return AudienceNote(code=code, detail=detail, detail_ru=detail_ru)
