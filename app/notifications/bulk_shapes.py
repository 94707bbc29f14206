"""Which messages a bulk job is about, and what it does with them."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StrictBool

from app.core.errors import field_invalid
from app.core.ids import first_id_at
from app.notifications.states import State

MOST = 10_000  # messages that a job moves without being told again
MOST_EVER = 10_000_000

Action = Literal["cancel", "resend"]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Words = Annotated[list[Word], Field(min_length=1, max_length=100)]

# What each action is for: these may be asked for by name. Without a state all are looked at, and the others counted as left out.
STATES: dict[Action, frozenset[State]] = {
    "cancel": frozenset({State.HELD, State.QUEUED, State.SENDING}),
    "resend": frozenset({State.UNDELIVERED, State.EXPIRED, State.FAILED, State.UNKNOWN}),
}
# Somebody else's first: by his index there are few. The others are looked for in the window of ids.
INDEXED = {"account": "m.account_id = (SELECT a.id FROM account a WHERE a.number = :account)", "address": "m.address = :address"}
STATE = "coalesce(o.state, m.state)"
NARROWED = {
    "type": "m.type = ANY(CAST(:type AS text[]))",
    "channel": "m.channel = :channel",
    "gateway": "coalesce(o.gateway, m.gateway) = ANY(CAST(:gateway AS text[]))",
    "state": f"{STATE} = ANY(CAST(:state AS text[]))",
    "reason": "CASE WHEN o.message_id IS NULL THEN m.reason ELSE o.reason END = ANY(CAST(:reason AS text[]))",
    "template_id": "m.template_id = CAST(:template_id AS uuid)",
}
PERSONAL = ("account", "address")


class MessageBulkFilter(BaseModel):
    """Every condition holds; several values of one are alternatives. `from` and `to` are times of creation, `to` not included."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    from_: AwareDatetime = Field(alias="from")
    to: AwareDatetime
    type: Words | None = None
    channel: Literal["sms", "email"] | None = None
    gateway: Words | None = None
    state: Annotated[list[State], Field(min_length=1, max_length=len(State))] | None = Field(
        default=None, description="cancel: held, queued, sending; resend: undelivered, expired, failed, unknown"
    )
    reason: Words | None = None
    template_id: UUID | None = None
    account: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00]*$")] | None = None
    address: Annotated[str, Field(min_length=1, max_length=320, pattern=r"^[^\x00]*$")] | None = None

    @property
    def first(self) -> UUID:
        """Smaller than the id of every message that it is about."""
        return UUID(int=max(1, first_id_at(self.from_).int) - 1)

    def end(self, moment: datetime) -> UUID:
        """Greater than those that were made before this moment, the only ones that it is about."""
        return first_id_at(min(self.to, moment))

    def stored(self) -> dict[str, Any]:
        """As JSON, with what was said alone."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def indexed(self) -> tuple[str, dict[str, Any]]:
        """Conditions on a message `m` that an index of its own answers, and their values."""
        return self._conditions(INDEXED)

    @property
    def narrowed(self) -> tuple[str, dict[str, Any]]:
        """The others, on a message `m` and its line `o` in the outbox."""
        return self._conditions(NARROWED)

    def _conditions(self, known: dict[str, str]) -> tuple[str, dict[str, Any]]:
        given = {name: value for name, value in self if name in known and value is not None}
        return "".join(f" AND {known[name]}" for name in given), given


class MessageBulkIn(BaseModel):
    """What is to be done with all of them. A dry run counts, and changes nothing."""

    model_config = ConfigDict(extra="forbid")

    action: Action
    filter: MessageBulkFilter
    dry_run: StrictBool = True
    note: str = Field(default="", max_length=300, pattern=r"^[^\x00]*$", description="For the audit: why")
    again: StrictBool = Field(default=False, description="resend: also what was sent again before, unless a copy of it is under way or has arrived")
    most: int = Field(default=MOST, ge=1, le=MOST_EVER, strict=True, description=f"No more than so many; for more than {MOST} `confirm` is needed")
    confirm: int | None = Field(
        default=None, ge=1, le=MOST_EVER, strict=True, description="`done` of a dry run of the same that ended within the last 24 hours; no more than these"
    )

    def check(self) -> None:
        """Invalid, with the field, where parts of it do not go together."""
        if self.filter.from_ >= self.filter.to:
            raise field_invalid(("filter", "to"), "empty_period", "`to` must be later than `from`.")
        for index, state in enumerate(self.filter.state or ()):
            if state not in STATES[self.action]:
                wanted = ", ".join(sorted(STATES[self.action]))
                raise field_invalid(("filter", "state", index), "state_not_for_action", f"To {self.action} is for messages that are {wanted}.")
        if self.again and self.action != "resend":
            raise field_invalid(("again",), "not_for_action", "`again` is for resend alone: leave it out.")
        if not self.dry_run and self.most > MOST and self.confirm is None:
            raise field_invalid(("confirm",), "confirm_needed", f"For more than {MOST} make a dry run first, and send its `done` as `confirm`.")
