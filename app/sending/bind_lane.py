"""The lane of one bind: wire, claiming loop and flusher, put together from the gateway's settings and the types' options."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.catalogue.registry import Catalogue
from app.core.clock import now
from app.core.db import Database
from app.gateways.smpp import SmppSettings
from app.sending.answers import Answers
from app.sending.budgets import Budgets, limit_of, type_limits
from app.sending.claim import Claimed
from app.sending.deliver import Delivery
from app.sending.flush import Flusher, Record
from app.sending.lane import Lane
from app.sending.late import Late
from app.sending.outcome import Outcome
from app.sending.settle import Policy
from app.sending.slots import Slot
from app.sending.smpp.bind import Bind
from app.sending.smpp.compose import Shipment
from app.sending.smpp.inbound import InboundReader
from app.sending.smpp.status import BindStatus

LEASE_SPARE = timedelta(seconds=30)
SHORTEST_VALIDITY = timedelta(minutes=1)


def open_bind_lane(
    database: Database,
    settings: SmppSettings,
    slot: Slot,
    catalogue: Catalogue,
    zone: ZoneInfo,
    record: Record[Any],
    *,
    on_change: Callable[[BindStatus], None],
    on_answer: Callable[[Outcome], None] = lambda _: None,
    on_trace: Callable[[str], None] | None = None,
    may_claim: Callable[[], bool],
) -> Lane:
    """Not started yet. `catalogue` is kept up to date by the station while the lane runs."""
    name = slot.gateway
    policy, answers = policy_of(name, settings, catalogue), Answers(name)
    budgets = Budgets(database, name, limit_of(settings.daily_parts, settings.daily_cost), settings.price_per_part, lambda: type_limits(catalogue), zone)

    def came(shipment: Shipment, outcome: Outcome) -> None:
        answers.count(outcome)
        on_answer(outcome)
        delivery.came(shipment.key, outcome)

    def came_late(shipment: Shipment, index: int, identity: str) -> None:
        answers.late()
        flusher.late(Late(shipment.key, index + 1, identity))

    def ship(claimed: Claimed) -> int:
        return bind.ship(shipment_of(claimed, flash=catalogue.options(claimed.type).flash))

    bind = Bind(
        settings,
        on_outcome=came,
        on_late=came_late,
        on_receipt=lambda receipt: flusher.receipt(receipt),  # noqa: PLW0108 - the flusher comes next
        on_change=on_change,
        on_trace=on_trace,
        slot=slot.number,
        zone=zone,
    )
    flusher = Flusher(database, slot.fence, policy, release=lambda claimed, written: bind.release(delivery.done(claimed, written=written)), record=record)
    delivery = Delivery(database, bind, slot.fence, policy, flusher, ship=ship, lease=lease_of(settings), may_claim=may_claim, budgets=budgets)
    return Lane(bind, delivery, flusher)


def policy_of(gateway: str, settings: SmppSettings, catalogue: Catalogue) -> Policy:
    """How it is tried again here. What a type says about silence stands before what the gateway does."""
    profile = settings.profile
    return Policy(
        gateway=gateway,
        receipt_group=profile.receipt_group or gateway,
        backoff_min=timedelta(seconds=profile.retry_backoff_min),
        backoff_max=timedelta(seconds=profile.retry_backoff_max),
        attempts=profile.temp_attempts,
        resends=lambda code: (catalogue.options(code).on_response_timeout or profile.on_response_timeout) == "resend_once",
        in_one=profile.long_messages == "payload",
        one_receipt=profile.receipts_per == "message",
        address=profile.receipt_address,
        inbound=InboundReader(profile),
    )


def shipment_of(claimed: Claimed, *, flash: bool) -> Shipment:
    """The message as the wire takes it."""
    validity = max(claimed.expires_at - now(), SHORTEST_VALIDITY)
    # Without a number of its own it was planned as one part; should the wire make more of it, these bits hardly ever meet another message's.
    reference = claimed.reference if claimed.reference is not None else claimed.id.int & 0xFFFF
    return Shipment(
        claimed.id,
        claimed.address,
        claimed.text,
        claimed.sender,
        validity,
        claimed.urgent,
        reference,
        claimed.attempts + 1,
        type=claimed.type,
        flash=flash,
    )


def lease_of(settings: SmppSettings) -> timedelta:
    """Writing takes its time, too: a window of parts, and those of one long message, at the agreed rate."""
    profile = settings.profile
    writing = (settings.window + profile.max_parts) / rate if (rate := settings.rate_of_bind) else 0.0
    return timedelta(seconds=profile.response_timeout + writing) + LEASE_SPARE
