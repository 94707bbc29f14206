"""SMS from subscribers, as a bind hands them over."""

import itertools
from collections.abc import Sequence
from typing import Any

from app.core.db import Database
from app.gateways.profile import Profile
from app.sending.settle import Policy
from app.sending.smpp.inbound import InboundReader
from app.sending.smpp.receipts import Receipt, ReceiptReader
from app.simulators.smsc_wire import deliver_body
from app.sms import gsm
from app.tracking.match import record
from tests.builders.messages import POLICY
from tests.builders.receipts import DELIVER_SM

PHONE = "79161234567"
numbers = itertools.count(1)


def an_sms(
    text: str | bytes = "Привет",
    source: str = PHONE,
    destination: str = "1234",
    *,
    coding: int | None = None,
    udh: bytes = b"",
    tail: bytes = b"",
    profile: Profile | None = None,
) -> Receipt:
    """In UCS-2, unless `coding` says otherwise or the text is octets."""
    return ReceiptReader(profile or Profile()).read(
        DELIVER_SM, next(numbers), an_sms_body(text, source, destination, coding=coding, udh=udh, tail=tail), lambda *_: None
    )


def an_sms_body(
    text: str | bytes = "Привет", source: str = PHONE, destination: str = "1234", *, coding: int | None = None, udh: bytes = b"", tail: bytes = b""
) -> bytes:
    if coding is None:
        coding = 8 if isinstance(text, str) else 0
    octets = text if isinstance(text, bytes) else text.encode("utf-16-be") if coding == 8 else gsm.encode(text)
    assert octets is not None
    return deliver_body(source.encode(), destination.encode(), udh + octets, esm_class=0x40 if udh else 0, data_coding=coding, tail=tail)


def joint8(reference: int, total: int, number: int) -> bytes:
    return bytes((5, 0, 3, reference, total, number))


def joint16(reference: int, total: int, number: int) -> bytes:
    return bytes((6, 8, 4, reference >> 8, reference & 0xFF, total, number))


def parts_of(*texts: str, reference: int = 7, source: str = PHONE) -> list[Receipt]:
    """A long SMS whose parts have these texts."""
    return [an_sms(text, source, udh=joint8(reference, len(texts), number)) for number, text in enumerate(texts, 1)]


def a_policy(gateway: str = "main", group: str = "main", **profile: Any) -> Policy:
    return Policy(gateway, group, POLICY.backoff_min, POLICY.backoff_max, 3, inbound=InboundReader(Profile(**profile)))


async def come(database: Database, *messages: Receipt, policy: Policy | None = None, settled: Sequence[str] = ()) -> None:
    """They come in one flush."""
    async with database.transaction() as session:
        await record(session, policy or a_policy(), messages, settled)
