"""The notification types as planning and intake ask for them: in memory, read again when one has changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from app.catalogue.models import NotificationType
from app.catalogue.options import DEFAULT, SendingOptions, options_of

REMINDERS = frozenset({"balance.threshold_reached", "balance.exhausting", "charges.upcoming"})
# A revision only grows and no type is ever deleted: the two together change with every change.
STAMP = sa.text("SELECT count(*), coalesce(sum(revision), 0) FROM notification_type")


@dataclass(frozen=True, slots=True)
class TypeRules:
    """How one type behaves, with the defaults of `passes_*` resolved."""

    code: str
    titles: Mapping[str, str]
    enabled: bool
    mandatory: bool
    urgent: bool
    passes_window: bool
    passes_quiet_hours: bool
    coalesce: timedelta
    channels: tuple[str, ...]
    ttl: timedelta
    settings: Mapping[str, Any]
    data_schema: dict[str, Any] | None
    options: SendingOptions = DEFAULT
    default_channels: frozenset[str] = frozenset()  # of those who have chosen nothing

    @property
    def kind(self) -> str:
        """Whose caps it counts towards."""
        return self.options.kind or ("reminder" if self.code in REMINDERS else "operation")


class Catalogue:
    """All types. Empty until the first `refresh`."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] | None = None
        self.types: Mapping[str, TypeRules] = MappingProxyType({})
        self._options: Mapping[str, SendingOptions] = MappingProxyType({})

    async def refresh(self, session: AsyncSession, stamp: tuple[int, int] | None = None) -> None:
        """Up to date with this session. One small query when nothing has changed; none when the caller has asked for the STAMP himself."""
        if stamp is None:
            count, revisions = (await session.execute(STAMP)).one()
            stamp = count, int(revisions)
        if stamp == self._stamp:
            return
        rows = (await session.execute(sa.select(NotificationType))).scalars()
        # Replaced as a whole: whoever is reading the old mapping keeps a consistent one.
        self.types = MappingProxyType({row.code: rules_of(row) for row in rows})
        self._options = MappingProxyType({code: rules.options for code, rules in self.types.items() if rules.options != DEFAULT})
        self._stamp = stamp

    def options(self, code: str) -> SendingOptions:
        """What its settings say about the sending of a type; also of one that is not known."""
        return self._options.get(code, DEFAULT)

    @property
    def special(self) -> Mapping[str, SendingOptions]:
        """The types whose sending options are not the defaults."""
        return self._options


def rules_of(row: NotificationType) -> TypeRules:
    options = options_of(row.code, row.settings)
    return TypeRules(
        code=row.code,
        titles=row.titles,
        enabled=row.enabled,
        mandatory=row.mandatory,
        urgent=row.urgent,
        passes_window=row.urgent or row.mandatory if row.passes_window is None else row.passes_window,
        passes_quiet_hours=row.urgent if row.passes_quiet_hours is None else row.passes_quiet_hours,
        coalesce=timedelta(seconds=row.coalesce_seconds),
        channels=tuple(row.channels),
        ttl=timedelta(seconds=row.ttl_seconds),
        settings=row.settings,
        data_schema=row.data_schema,
        options=options,
        default_channels=frozenset(row.channels if options.default_channels is None else options.default_channels),
    )
