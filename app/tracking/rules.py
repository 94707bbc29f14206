"""What the gateways' profiles say about receipts, for the sweeps: in memory, read again when a gateway has changed."""

from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
import structlog
from pydantic import ValidationError

from app.core.db import Executor
from app.gateways.models import Gateway
from app.gateways.profile import Profile
from app.gateways.smpp import SmppSettings
from app.tracking.match import Finding

log = structlog.get_logger()

REVISIONS = sa.text("SELECT name, revision FROM gateway WHERE kind = 'smpp'")
CHANGED = sa.select(Gateway).where(sa.text("name = ANY(CAST(:names AS text[]))"))

MOST_PATIENCE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class ReceiptRules:
    """Of one gateway. `patience`: the answer to a submit may take so long, and an early receipt belongs to a message that still waits for it."""

    finding: Finding
    resends: bool
    match_unknown: timedelta
    patience: timedelta
    receipt_timeout: timedelta
    longest_validity: timedelta
    expects_receipts: bool

    @classmethod
    def by(cls, gateway: str, profile: Profile) -> "ReceiptRules":
        return cls(
            finding=Finding(profile.receipt_group or gateway, profile.receipts_per == "message", profile.receipt_address),
            resends=profile.on_response_timeout == "resend_once",
            match_unknown=timedelta(seconds=profile.match_unknown),
            patience=min(timedelta(seconds=profile.response_timeout), MOST_PATIENCE),
            receipt_timeout=timedelta(seconds=profile.receipt_timeout),
            longest_validity=timedelta(seconds=profile.validity_max),
            expects_receipts=profile.expects_receipts,
        )


class GatewayRules:
    """Of all SMPP gateways. Empty until the first `refresh`."""

    def __init__(self) -> None:
        self._revisions: dict[str, int] = {}
        self._rules: dict[str, ReceiptRules] = {}

    async def refresh(self, session: Executor) -> None:
        """Up to date with this session; one small query when nothing has changed."""
        revisions = dict(tuple(row) for row in (await session.execute(REVISIONS)).all())
        changed = [name for name, revision in revisions.items() if self._revisions.get(name) != revision]
        if changed:
            for gateway in (await session.execute(CHANGED, {"names": changed})).scalars():
                self._rules[gateway.name] = ReceiptRules.by(gateway.name, profile_of(gateway))
        self._rules = {name: rules for name, rules in self._rules.items() if name in revisions}
        self._revisions = revisions

    def of(self, gateway: str | None) -> ReceiptRules:
        """Also of a gateway that is gone: as if it had an ordinary profile."""
        return self._rules.get(gateway or "") or ReceiptRules.by(gateway or "", Profile())

    def in_group(self, receipt_group: str) -> list[str]:
        """The gateways whose receipts may arrive on each other's binds."""
        return [name for name, rules in self._rules.items() if rules.finding.receipt_group == receipt_group]

    @property
    def all(self) -> dict[str, ReceiptRules]:
        return self._rules


def profile_of(gateway: Gateway) -> Profile:
    try:
        return SmppSettings.model_validate(gateway.settings | {"enabled": gateway.enabled}).profile
    except ValidationError as error:
        log.error("gateway_settings_unreadable", gateway=gateway.name, faults=error.error_count())
        return Profile()
