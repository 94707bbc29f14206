"""The links that templates may write: the cabinet, and the one that refuses this type on this contact."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from app.accounts.preference_checks import NOT_CHOSEN
from app.accounts.unsubscribe import UnsubscribeLinks
from app.catalogue.registry import TypeRules
from app.core.config import Settings
from app.rendering.compose import Templates


def can_be_refused(rules: TypeRules) -> bool:
    """Whether a subscriber may do without this type."""
    return not rules.mandatory and rules.code not in NOT_CHOSEN


class Links:
    """Of one process. A link that no template writes costs nothing."""

    def __init__(self, settings: Settings) -> None:
        self._plain = {"cabinet": settings.cabinet_url}
        self._unsubscribe = UnsubscribeLinks(settings)

    def of(self, templates: Templates, rules: TypeRules | None, account_id: UUID, contact: Any) -> Mapping[str, str]:
        """`unsubscribe` is empty for what nobody can refuse."""
        if rules is None or not can_be_refused(rules) or not templates.offers_refusal(rules.code, contact.channel):
            return self._plain
        return self._plain | {"unsubscribe": self._unsubscribe.link(account_id, contact.id, rules.code)}
