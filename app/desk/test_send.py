"""A template sent to its author: one message to each contact of the calling key, and to nobody else.

It goes at once and past preferences, hours and caps, and it is in no report (`message.test`). Else it is a message like any other: with a road, a price, a
history. It belongs to the account whose data it shows, so that an erasure finds it; where the data are made up it belongs to nobody.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.accounts.contacts import AddressError, normalise
from app.accounts.suppressions import is_barred
from app.core import audit, metrics
from app.core.auth import Caller, MayWriteTemplates
from app.core.clock import now
from app.core.errors import Conflict, FieldError, Invalid, field_invalid
from app.core.http import Guarded
from app.core.ids import NOBODY
from app.core.limits import Rate
from app.desk.keys import contacts_of
from app.desk.preview import Killed
from app.desk.preview_case import Case, case_of
from app.desk.preview_words import AUTHORS_FAULT, Stored, look_of, stored, with_killed, words_of
from app.gateways.operators import operators_of
from app.gateways.roads import Roads
from app.gateways.router import NO_ATTRIBUTES, SIMULATED_ROAD, Road
from app.notifications.audience import URGENT, Reached, Told
from app.notifications.rows import Rows, recut_for
from app.notifications.states import State
from app.notifications.stops import Stops
from app.rendering.compose import Composed
from app.rendering.enclosures import opened
from app.rendering.payees import PAYMENT_QR

router = APIRouter(prefix="/templates", tags=["templates"], route_class=Guarded)

TESTS = Rate("tests", 10, 10)  # messages of one key
OF_USE = timedelta(hours=1)
IS_TEST = sa.text("UPDATE message SET test = true WHERE id = ANY(CAST(:ids AS uuid[]))")
# What was sent can be read for ever: the template is not deleted any more. No row where it has been just now.
USED = sa.text("UPDATE template SET used_at = coalesce(used_at, :now) WHERE id = :id RETURNING id")
# As whoever writes to an account does: an erasure has been before it, or comes after it and finds the message.
LOCK = sa.text("SELECT id FROM account WHERE id = :id AND status <> 'erased' FOR NO KEY UPDATE")


class NoTestContacts(Invalid):
    """Nobody has said where the test messages of this key may go."""

    code, title = "no_test_contacts", "This key has no contacts for test messages"


class NotRenderable(Invalid):
    """There are no words: `errors` says why."""

    code, title = "not_renderable", "The template cannot be rendered"


class TestSendIn(BaseModel):
    """What to send a test of, and with whose data."""

    model_config = ConfigDict(extra="forbid")

    version: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(default=None, description="The newest when left out")
    account: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(default=None, description="The number of the account whose data it shows")
    sample: dict[str, Any] | None = Field(default=None, description="The data of the event; an example of the type's when left out")
    contact: Annotated[str, Field(min_length=1, max_length=320)] | None = Field(
        default=None, description="One of the key's contacts; all of the template's channel when left out"
    )


class TestMessage(BaseModel):
    """One message on its way: `GET /messages/{id}` says what becomes of it."""

    model_config = ConfigDict(extra="forbid")

    id: UUID
    channel: Literal["sms", "email"]
    address: str
    gateway: str


class TestSendOut(BaseModel):
    model_config = ConfigDict(extra="forbid")

    template_id: UUID
    version: int
    messages: list[TestMessage]


@dataclass(frozen=True, slots=True)
class Tried:
    """What is sent: a version, filled with the data of a case."""

    version: Stored
    case: Case
    words: Composed


@router.post("/{template_id}/test-send", operation_id="test_send_template", summary="Send a version to the contacts of your own key", status_code=201)
async def test_send(template_id: UUID, given: TestSendIn, request: Request, caller: MayWriteTemplates) -> TestSendOut:
    """Only there; an administrator has said which they are (`PUT /keys/{id}/contacts`). At most ten messages a minute. Published or not, what is sent is what
    a preview shows; the links in it refuse nothing."""
    state = request.app.state
    with state.previews.seat():
        async with state.database.transaction() as session:
            version = await stored(session, template_id, given.version)
            addresses = await whereto(session, caller, version.channel, given.contact, state.settings.phone_region)
            case = await case_of(session, state.settings, version.channel, version.kind, given.account, given.sample, version.locale)
            look = await look_of(session, version.fields, case.account["attributes"])
        tried = Tried(version, case, await words_for_test(request, version.job | look | case.job(state.settings)))
    for _ in addresses:
        await state.limits.admit([(TESTS, caller.name)])
    async with state.database.transaction() as session:
        sent = await send(session, caller, tried, addresses, now())
    state.wakeups.wake(*{queue for _, road in sent for queue in road.queues})
    messages = [
        TestMessage(id=message_id, channel=version.channel, address=address, gateway=road.name)
        for address, (message_id, road) in zip(addresses, sent, strict=True)
    ]
    return TestSendOut(template_id=template_id, version=version.number, messages=messages)


async def whereto(session: AsyncSession, caller: Caller, channel: str, wanted: str | None, region: str) -> list[str]:
    """The key's own addresses on this channel, or the one of them that is wanted."""
    own = await contacts_of(session, caller, channel)
    if not own:
        raise NoTestContacts(f"This key has no contacts by {channel}: ask an administrator to set them, PUT /keys/{caller.key_id}/contacts.")
    if wanted is None:
        return own
    try:
        address = normalise(channel, wanted, region)
    except AddressError as bad:
        raise field_invalid(("contact",), bad.code, bad.detail) from None
    if address not in own:
        raise field_invalid(("contact",), "not_a_test_contact", "This is no contact of the calling key: test messages go to those alone.")
    return [address]


async def words_for_test(request: Request, job: dict[str, Any]) -> Composed:
    """Rendered as a preview is: a version that nobody has published may be anything."""
    answer = await request.app.state.previews.seated(job)
    if isinstance(answer, Killed):
        answer = with_killed(answer)
    if answer["words"] is None:
        faults = [FieldError(one["pointer"], one["code"], one["detail"]) for one in answer["problems"]]
        raise NotRenderable(faults[0].detail if faults else AUTHORS_FAULT, errors=faults)
    words, brand = words_of(answer["words"]), job["brand"]
    if any(spec["kind"] == PAYMENT_QR for spec in opened(words.attachments or ())[0]) and (brand is None or brand["settings"]["payee"] is None):
        fault = FieldError("/attachments", "no_payee", "The payment code has no payee in the brand of this letter: add `payee` to it.")
        raise NotRenderable(fault.detail, errors=[fault])
    return words


async def send(session: AsyncSession, caller: Caller, tried: Tried, addresses: Sequence[str], moment: datetime) -> list[tuple[UUID, Road]]:
    """The messages and the roads that they take, in the order of the addresses; all of them, or a Conflict and none."""
    version, case = tried.version, tried.case
    if case.account_id != NOBODY and (await session.execute(LOCK, {"id": case.account_id})).first() is None:
        raise Conflict("The account was erased just now.", code="erased")
    if (await session.execute(USED, {"id": version.template_id, "now": moment})).first() is None:
        raise Conflict("The template was deleted just now.", code="template_deleted")
    code, channel = version.kind.code, version.channel
    router, stops = await Roads().look(session), await Stops.look(session)
    operators = await operators_of(session, addresses) if router.asks_operator and channel == "sms" else {}
    attributes = case.account["attributes"] if router.asks_attributes else NO_ATTRIBUTES
    rows, sent = Rows(), list[tuple[UUID, Road]]()
    for address in addresses:
        if await is_barred(session, channel, address, mandatory=False):
            raise Conflict(f"{address} is suppressed: see GET /suppressions, and lift it there first.", code="suppressed")
        road = SIMULATED_ROAD if caller.test else router.choose(channel, code, address, case.account_id, attributes, operators.get(address))
        if road is None:
            raise Conflict(f"No enabled gateway sends by {channel}.", code="no_gateway")
        if stops.hold(code, road.name):
            raise Conflict("A stop stands over this type, this gateway or everything: see GET /stops.", code="stopped")
        nobodys: Any = None  # it is no contact of an account
        told = Told(Reached(nobodys, channel, address, "", suppressed=False), moment, None, moment + OF_USE, URGENT)
        words = recut_for(road, replace(tried.words, template_id=version.template_id))
        sent.append((rows.message(event_id=None, account_id=case.account_id, code=code, told=told, words=words, road=road, now=moment), road))
        metrics.MESSAGES.labels(channel, road.name, code, State.QUEUED.value).inc()
    await rows.write(session)
    ids = [message_id for message_id, _ in sent]
    await session.execute(IS_TEST, {"ids": ids})
    said = {"version": version.number, "messages": [str(message_id) for message_id in ids]}
    await audit.record(session, caller, "template.test_send", f"template:{version.template_id}", said)
    return sent
