"""The rule by which a contact is told, against the same said another way; and the document."""

import re
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import orjson
from hypothesis import given
from hypothesis import strategies as st

from app.accounts import preferences
from app.accounts.preference_shapes import PreferencesIn, differing, document_of, leaves_of, replaced, without_contact
from app.accounts.preferences import read, refusal
from app.catalogue.options import SendingOptions
from app.catalogue.registry import TypeRules

CODES, CHANNELS, CONTACTS = ("payment.received", "tariff.changed"), ("sms", "email"), tuple(uuid4() for _ in range(2))
NOES = ("type_off", "channel_off", "contact_off", "contact_type_off")


def rules_of(code: str, *, mandatory: bool, opt_in: bool, default_channels: frozenset[str]) -> TypeRules:
    return TypeRules(
        code=code,
        titles={},
        enabled=True,
        mandatory=mandatory,
        urgent=False,
        passes_window=False,
        passes_quiet_hours=False,
        coalesce=timedelta(0),
        channels=CHANNELS,
        ttl=timedelta(days=1),
        settings={},
        data_schema=None,
        options=SendingOptions(opt_in=opt_in),
        default_channels=default_channels,
    )


choice = st.none() | st.booleans()
rules = st.builds(
    rules_of,
    st.sampled_from(CODES),
    mandatory=st.booleans(),
    opt_in=st.booleans(),
    default_channels=st.frozensets(st.sampled_from(CHANNELS)),
)
clocks = st.tuples(st.integers(0, 23), st.integers(0, 59)).map(lambda clock: f"{clock[0]:02}:{clock[1]:02}")
intervals = st.fixed_dictionaries({"from": clocks, "to": clocks}, optional={"weekdays": st.sets(st.integers(1, 7), min_size=1).map(sorted)})
documents = st.fixed_dictionaries(
    {},
    optional={
        "locale": st.sampled_from(["ru", "en", None]),
        "threshold": st.sampled_from(["0.00", "12.5", None]),
        "hours": st.lists(intervals, max_size=3),
        "types": st.dictionaries(
            st.sampled_from(CODES),
            st.fixed_dictionaries(
                {}, optional={"enabled": choice, "channels": st.dictionaries(st.sampled_from(CHANNELS), choice), "days_before": st.integers(1, 30)}
            ),
        ),
        "contacts": st.dictionaries(
            st.sampled_from(CONTACTS).map(str),
            st.fixed_dictionaries(
                {}, optional={"enabled": choice, "types": st.dictionaries(st.sampled_from(CODES), choice), "hours": st.lists(intervals, max_size=2)}
            ),
        ),
    },
)
asked = (rules, documents, st.sampled_from(CHANNELS), st.sampled_from(CONTACTS))


def stored(document: dict) -> str:
    """As PUT takes it and the table keeps it."""
    return orjson.dumps(document_of(PreferencesIn.model_validate(document).leaves)).decode()


def said(document: dict, *way: str) -> object:
    """What stands at a place, or nothing."""
    for step in way:
        document = (document or {}).get(step)
    return document


def is_told(kind: TypeRules, document: dict, channel: str, contact: UUID) -> bool:
    """The rule said once more: somebody has said no, somebody has said yes, or nobody has said anything."""
    of_type, of_channel = said(document, "types", kind.code, "enabled"), said(document, "types", kind.code, "channels", channel)
    of_contact, of_both = said(document, "contacts", str(contact), "enabled"), said(document, "contacts", str(contact), "types", kind.code)
    if kind.mandatory:
        return True
    if False in (of_type, of_channel, of_contact, of_both):
        return False
    if of_channel or of_both:
        return True
    by_default = channel in kind.default_channels
    return by_default and (bool(of_type) or not kind.options.opt_in)


@given(*asked)
def test_rule_is_what_it_says(kind, document, channel, contact):
    found = refusal(kind, channel, contact, read(stored(document)))

    assert (found is None) == is_told(kind, document, channel, contact)


@given(*asked)
def test_mandatory_type_is_always_told(kind, document, channel, contact):
    always = rules_of(kind.code, mandatory=True, opt_in=kind.options.opt_in, default_channels=kind.default_channels)

    assert refusal(always, channel, contact, read(stored(document))) is None


@given(*asked, st.sampled_from(NOES))
def test_no_at_any_level_is_a_no_whatever_the_others_say(kind, document, channel, contact, level):
    if kind.mandatory:
        return
    place = {
        "type_off": ("types", kind.code, "enabled"),
        "channel_off": ("types", kind.code, "channels", channel),
        "contact_off": ("contacts", str(contact), "enabled"),
        "contact_type_off": ("contacts", str(contact), "types", kind.code),
    }[level]
    leaves = PreferencesIn.model_validate(document).leaves | {place: False}

    found = refusal(kind, channel, contact, read(orjson.dumps(document_of(leaves)).decode()))

    assert found in NOES[: NOES.index(level) + 1], "the first of them that applies is the reason"


@given(*asked)
def test_choice_for_one_contact_or_type_is_nothing_to_another(kind, document, channel, contact):
    other_type, other_contact = next(code for code in CODES if code != kind.code), next(one for one in CONTACTS if one != contact)
    leaves = PreferencesIn.model_validate(document).leaves
    changed = {
        **leaves,
        ("types", other_type, "enabled"): False,
        ("contacts", str(other_contact), "enabled"): False,
        ("contacts", str(contact), "types", other_type): False,
    }

    before, after = (refusal(kind, channel, contact, read(orjson.dumps(document_of(one)).decode())) for one in (leaves, changed))

    assert before == after


@given(documents)
def test_document_is_the_same_however_often_it_is_read_and_written(document):
    leaves = PreferencesIn.model_validate(document).leaves
    kept = document_of(leaves)

    assert leaves_of(kept) == leaves
    assert PreferencesIn.model_validate(kept).leaves == leaves
    assert leaves_of(orjson.loads(orjson.dumps(kept))) == leaves


@given(documents, documents)
def test_difference_of_two_documents_makes_the_one_of_the_other(first, second):
    before, after = (PreferencesIn.model_validate(document).leaves for document in (first, second))

    made = dict(before)
    for place, (had, has) in differing(before, after).items():
        assert made.pop(place, None) == had
        if has is not None:
            made[place] = has

    assert made == after


@given(documents, documents)
def test_sections_that_are_said_replace_what_was_there_and_others_stay(first, second):
    before, given_ = PreferencesIn.model_validate(first).leaves, PreferencesIn.model_validate(second)

    after = document_of(replaced(before, given_.leaves, given_.model_fields_set))

    for section in ("locale", "threshold", "hours", "types", "contacts"):
        whose = given_.leaves if section in given_.model_fields_set else before
        assert after.get(section) == document_of(whose).get(section)


@given(documents)
def test_contact_that_is_forgotten_has_nothing_left(document):
    after = document_of(without_contact(PreferencesIn.model_validate(document).leaves, CONTACTS[0]))

    assert str(CONTACTS[0]) not in after.get("contacts", {})
    assert read(orjson.dumps(after).decode()).contacts.get(CONTACTS[0]) is None


def test_table_of_the_documentation_is_the_rule_line_by_line():
    root = Path(__file__).resolve().parents[2]
    told = [line.split("  ")[-1].strip() for line in (preferences.__doc__ or "").splitlines() if line.startswith("    ") and "  " in line.strip()]
    expected = ["" if reason.startswith("told") else reason for reason in told]

    for page in ("docs/preferences.md", "docs/ru/preferences.md"):
        section = re.split(r"^## (?:The rule|Правило)$", (root / page).read_text("utf-8"), flags=re.MULTILINE)[1].split("\n## ")[0]
        rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")][2:]
        assert [cells[2].strip(" `") for cells in rows] == expected
        assert len(expected) == 10
