"""What was said about one account, ready to be compared with what is stored."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from app.accounts.contacts import AddressError, normalise
from app.accounts.preference_shapes import Said
from app.accounts.shapes import AccountPatch
from app.core.errors import FieldError, Invalid, pointer

FIELDS = ("name", "status", "credit_limit", "currency", "locale", "timezone", "tariff", "threshold", "attributes")

Address = tuple[str, str, str]  # channel, address in its one form, label


class Charge(NamedTuple):
    """A charge to come, in the order of the table's columns after its ids."""

    id: str
    title: str
    amount: Decimal
    kind: str
    slot: int
    on: date | None
    start_on: date | None
    end_on: date | None
    posted_through: date | None
    announce: bool


@dataclass(slots=True)
class Snapshot:
    """What was said about one account; what was not said stays as it is."""

    number: str
    fields: dict[str, Any]
    balance: Decimal | None
    balance_as_of: datetime | None
    contacts: list[Address] | None
    charges: list[Charge] | None
    digest: int | None = field(default=None, compare=False)  # of the line that said it
    lists: int | None = field(default=None, compare=False)  # of what the line said of contacts and charges
    # Reads the line with its contacts and charges. Set when they were passed over, for being those that the account remembers (`lists`).
    whole: "Callable[[], Snapshot] | None" = field(default=None, compare=False)
    preferences: Said | None = None

    def over(self, earlier: "Snapshot") -> "Snapshot":
        """Both said one after the other: this one wins. Both are whole."""
        keeps_balance = self.balance is None or (
            earlier.balance_as_of is not None and self.balance_as_of is not None and earlier.balance_as_of > self.balance_as_of
        )
        money = earlier if keeps_balance else self
        return Snapshot(
            self.number,
            earlier.fields | self.fields,
            money.balance,
            money.balance_as_of,
            earlier.contacts if self.contacts is None else self.contacts,
            earlier.charges if self.charges is None else self.charges,
            self.digest,
            earlier.lists if self.lists is None else self.lists,
            preferences=earlier.preferences if self.preferences is None else self.preferences.over(earlier.preferences),
        )


def snapshot(number: str, given: AccountPatch, region: str) -> Snapshot:
    """The shape as a snapshot, its addresses in their one form; Invalid, with a pointer to each bad address."""
    said = given.model_fields_set
    fields = {name: value for name in FIELDS if name in said and ((value := getattr(given, name)) is not None or name == "threshold")}
    contacts: dict[tuple[str, str], Address] | None = None
    if given.contacts is not None:
        contacts, faults = {}, []
        for n, contact in enumerate(given.contacts):
            try:
                address = normalise(contact.channel, contact.address, region)
            except AddressError as bad:
                faults.append(FieldError(pointer("contacts", n, "address"), bad.code, bad.detail))
            else:
                contacts.setdefault((contact.channel, address), (contact.channel, address, contact.label))
        if faults:
            raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", errors=faults)
    charges = None
    if given.charges is not None:
        charges = [Charge(c.id, c.title, c.amount, c.kind, c.slot, c.on, c.start_on, c.end_on, c.posted_through, c.announce) for c in given.charges]
    return Snapshot(number, fields, given.balance, given.balance_as_of, None if contacts is None else list(contacts.values()), charges)
