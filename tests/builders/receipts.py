"""Delivery receipts as the reader of a bind hands them over, and submissions that they speak of."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.core.clock import now
from app.core.db import Database
from app.gateways.profile import Profile
from app.sending.models import Submission
from app.sending.smpp.receipts import Receipt, ReceiptReader
from app.simulators.smsc_wire import receipt_body
from app.tracking.match import record
from tests.builders.messages import POLICY

DELIVER_SM = 5
OK, AGAIN_LATER = 0, 0x64

numbers = itertools.count(1)
answers: dict[int, int] = {}


def a_receipt(
    identity: str = "1",
    stat: str = "DELIVRD",
    *,
    body: bytes | None = None,
    with_tlvs: bool = False,
    of: str = "79161234567",
    reference: int | None = None,
    err: str = "000",
) -> Receipt:
    """In the form of appendix B; its answer, once it has one, is `answer_to(receipt)`."""
    echoed = reference.to_bytes(2, "big") if reference is not None else None
    made = receipt_body(source=of.encode(), destination=b"MyISP", identity=identity, stat=stat, err=err, with_tlvs=with_tlvs, reference=echoed)
    octets = body if body is not None else made
    return ReceiptReader(Profile()).read(DELIVER_SM, next(numbers), octets, lambda _, sequence, status: answers.update({sequence: status}))


def answer_to(receipt: Receipt) -> int | None:
    return answers.get(receipt._sequence)


async def a_submission(
    database: Database, message_id: UUID, *ids: str, n: int = 1, group: str = "main", at: datetime | None = None, outcome: str = "accepted", **fields: Any
) -> None:
    """An attempt at a message of as many parts as there are ids."""
    moment = at or now() - timedelta(seconds=1)
    async with database.transaction() as session:
        for part, identity in enumerate(ids, 1):
            given = {"gateway": group, "outcome": outcome, "claimed_at": moment, "at": moment, "parts": len(ids)} | fields
            session.add(Submission(message_id=message_id, n=n, part=part, receipt_group=group, gateway_message_id=identity or None, **given))


async def receive(database: Database, *receipts: Receipt, settled: Sequence[str] = (), resent: Sequence[UUID] = (), group: str = "main", **policy: Any) -> None:
    """As a flusher of a gateway with this policy records them."""
    async with database.transaction() as session:
        await record(session, replace(POLICY, gateway=group, receipt_group=group, **policy), receipts, settled, resent)
