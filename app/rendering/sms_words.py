"""What an SMS costs before anybody gets it: analysed as one gateway cuts it, measured with the longest values, held against what its version promises.

analyse      a finished text -> encoding, parts, what forces UCS-2, what would be saved
cost_of      parts on a road -> money
worst_case   a version -> its words with the longest plausible values
sms_faults   a version -> what keeps it from being published, and what may go wrong with it
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Protocol

from app.catalogue.longest import DEBT, NAME, NUMBER, SUM, TITLE, WORD, longest_of
from app.core.errors import FieldError
from app.rendering.compose import RenderFailed, Version, variables
from app.sms import explain
from app.sms.cutting import Cutting
from app.sms.explain import Analysis
from app.sms.registered import Registered
from app.sms.segment import Encoding

_TIME = datetime(2026, 9, 30, 18, 59, tzinfo=UTC)  # the last minute of `longest.DAY`, where the account is
_ACCOUNT = SimpleNamespace(
    number=NUMBER,
    name=NAME,
    balance=Decimal(DEBT),
    credit_limit=Decimal(SUM),
    currency="RUB",
    tariff=TITLE,
    threshold=Decimal(SUM),
    status="suspended",
    timezone="Asia/Yekaterinburg",
    attributes={},
)
_CONTACT = SimpleNamespace(address="+123456789012345", label=WORD)  # E.164: 15 digits
_LINKS = {"cabinet": "https://cabinet.provider.example/payments/top-up", "unsubscribe": "https://cabinet.provider.example/unsubscribe/" + "x" * 88}
_COMMON = Cutting()
_LONGEST = " when the values are the longest plausible ones"


class Way(Protocol):
    """What counts of the road of a message (`gateways.router.Road`): how its gateway cuts, None in the common way, and what a part costs there."""

    @property
    def cutting(self) -> Cutting | None: ...
    @property
    def price(self) -> Decimal | None: ...


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The words with the longest values, as one gateway cuts them."""

    text: str
    encoding: Encoding
    segments: int


def analyse(text: str, road: Way | None = None) -> Analysis:
    """As `sms.explain.analyse`, on this road; without one as a common gateway cuts."""
    return explain.analyse(text, road.cutting if road is not None else None)


def cost_of(parts: int, road: Way | None) -> Decimal | None:
    """What so many parts cost on this road; None where nobody has said a price."""
    return None if road is None or road.price is None else parts * road.price


def worst_case(version: Version, type_code: str, schema: dict[str, Any] | None = None, *, invented: Iterable[str] = (), road: Way | None = None) -> WorstCase:
    """Of everything that an event of this type could bring, the words that take most parts. RenderFailed where they cannot be written.

    Tried are one event with all its data, one with what it needs alone, and ten in one message; sums have 12 digits, names 60 characters, account numbers
    20 (`catalogue.longest`). `invented`: names of a type whose data nobody has described; each is taken for a sum."""
    made_up = dict.fromkeys(invented, SUM)
    full, least = ({**made_up, **longest_of(type_code, schema, complete=complete)} for complete in (True, False))
    cutting = (road.cutting if road is not None else None) or _COMMON
    found: list[WorstCase] = []
    for data, earlier in ((full, ()), (least, ()), (full, (full,) * 9)):
        try:
            text = version.compose(variables(_ACCOUNT, _CONTACT, type_code, _TIME, data, _TIME, _LINKS, earlier=earlier)).text
        except RenderFailed:
            if data is not least:  # words of what may be absent can come out empty without it
                raise
            continue
        found.append(WorstCase(text, *cutting.count(text)))
    return max(found, key=lambda one: (one.segments, len(one.text)))


def sms_faults(
    version: Version, type_code: str, schema: dict[str, Any] | None, samples: Sequence[tuple[dict[str, Any], str]], *, invented: Iterable[str] = ()
) -> tuple[list[FieldError], list[FieldError]]:
    """What keeps this version from being published, and what may go wrong with it, by its options `max_parts` and `registered`.

    `samples` are variables that the version can be written with, the ordinary ones first, each with its `when ...` for the sentence: what goes wrong with the
    ordinary ones is a fault, with all others and with the longest ones a warning. Parts are counted as a common gateway cuts: which one a message takes is
    not known yet."""
    max_parts, pattern = version.options.get("max_parts"), version.options.get("registered")
    if max_parts is None and pattern is None:
        return [], []
    found: list[list[FieldError]] = []
    for values, when in samples:
        words = version.compose(values)
        found.append([*_too_many(words.parts, max_parts, when), *_not_as_registered(words.text, pattern, when)])
    faults, *others = found
    warnings = [warning for more in others for warning in more]
    try:
        longest = worst_case(version, type_code, schema, invented=invented)
    except RenderFailed as error:
        warnings.append(FieldError("/text", "worst_case_failed", error.detail + _LONGEST))
    else:
        warnings += _too_many(longest.segments, max_parts, _LONGEST)
        warnings += _not_as_registered(longest.text, pattern, _LONGEST)
    return faults, _first_of_each(warnings, {fault.code for fault in faults})


def _too_many(parts: int, most: int | None, when: str) -> list[FieldError]:
    if most is None or parts <= most:
        return []
    return [FieldError("/text", "too_many_parts", f"the text takes {parts} parts, and `max_parts` allows {most}" + when)]


def _not_as_registered(text: str, pattern: str | None, when: str) -> list[FieldError]:
    fits = Registered(pattern).misfit(text) if pattern is not None else None
    if fits is None:
        return []
    return [
        FieldError("/text", "not_as_registered", f"the text is another than the registered one from character {fits + 1} on: `{text[fits : fits + 30]}`" + when)
    ]


def _first_of_each(warnings: list[FieldError], known: set[str]) -> list[FieldError]:
    """What is said once need not be said for each sample."""
    told: dict[str, FieldError] = {}
    for warning in warnings:
        told.setdefault(warning.code, warning)
    return [warning for code, warning in told.items() if code not in known]
