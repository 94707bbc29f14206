"""Every name that a template may use, from the one definition that events are checked by."""

import pytest

from app.catalogue.defaults import BUILTIN
from app.catalogue.types import EVENT_TYPES, check_data, sample_of
from app.catalogue.variables import COMMON, variables_for, wording
from app.rendering.defaults import templates
from app.rendering.proof import emptiness
from tests.rendering.conftest import account

TOLD = [code for code in EVENT_TYPES if code != "balance.changed"]


def named(variables):
    return {variable.name: variable for variable in variables}


def flat(values, front=""):
    """The paths of what a template finds, but for what is in lists."""
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if isinstance(value, dict) and value:
            yield from flat(value, f"{front}{name}.")
        else:
            yield f"{front}{name}"


@pytest.mark.parametrize("code", TOLD)
def test_what_a_template_finds_is_what_is_listed(values, code):
    found = set(flat(values(code, sample_of(code))))
    listed = {variable.name for variable in variables_for(code)}

    beside = {path for path in found if path.startswith(("data.", "account.attributes"))}
    assert found - beside == listed - {"account.attributes.*"}
    assert {path.removeprefix("data.") for path in beside if path.startswith("data.")} <= listed


@pytest.mark.parametrize("code", TOLD)
def test_examples_are_data_that_intake_takes(code):
    own = [variable for variable in variables_for(code) if variable.name not in {name for name, *_ in COMMON} | {"count", "events"}]
    data = {}
    for variable in own:
        *outer, name = variable.name.split(".")
        place = data.setdefault(outer[0], {}) if outer else data
        place[name] = variable.example

    checked = check_data(code, data)

    assert not isinstance(checked, list), checked
    least = check_data(code, {name: value for name, value in data.items() if not named(own).get(name, own[0]).may_be_empty or isinstance(value, dict)})
    assert not isinstance(least, list), "without what may be empty, too"


@pytest.mark.parametrize("code", TOLD)
def test_each_variable_has_its_kind_and_its_sentences(code):
    for variable in variables_for(code):
        assert all(variable.description[locale] for locale in ("ru", "en"))
        assert variable.description["ru"] != variable.description["en"]
        assert variable.example is not None
        assert bool(variable.items) == (variable.kind == "list")


def test_no_sentence_is_left_over():
    used = {
        id(variable.description)
        for code in EVENT_TYPES
        for one in variables_for(code)
        for variable in (one, *one.items, *(deep for item in one.items for deep in item.items))
    }

    assert [name for name, said in wording().items() if id(said) not in used] == []


async def test_operator_reads_the_variables_of_a_type(api):
    answer = (await api.get("/notification-types/balance.exhausting/variables")).json()

    assert (answer["type"], answer["further"]) == ("balance.exhausting", False)
    found = {item["name"]: item for item in answer["items"]}
    assert found["recommended_payment"] == {
        "name": "recommended_payment",
        "kind": "money",
        "example": "100.00",
        "may_be_empty": False,
        "description": {"ru": "Сколько советуем внести.", "en": "The payment that is recommended."},
        "items": [],
    }
    kinds = {name: found[name]["kind"] for name in ("days_left", "exhausts_on", "charges", "event.time", "account.name")}
    assert kinds == {"days_left": "number", "exhausts_on": "date", "charges": "list", "event.time": "moment", "account.name": "text"}
    assert [(item["name"], item["kind"]) for item in found["charges"]["items"]] == [("id", "text"), ("title", "text"), ("amount", "money"), ("due_on", "date")]
    assert (found["shortfall"]["may_be_empty"], found["days_left"]["may_be_empty"]) == (True, False)
    assert found["event.type"]["example"] == "balance.exhausting"


async def test_a_word_that_means_something_else_in_a_type_says_so(api):
    said = {}
    for code in ("payment.received", "balance.restored"):
        items = (await api.get(f"/notification-types/{code}/variables")).json()["items"]
        said[code] = next(item["description"]["en"] for item in items if item["name"] == "amount")

    assert len(set(said.values())) == 2


async def test_variables_of_an_operators_type_come_from_its_schema(api):
    schema = {
        "type": "object",
        "$defs": {"gift": {"type": "object", "properties": {"name": {"type": "string", "title": "What"}, "worth": {"type": "number"}}, "required": ["name"]}},
        "properties": {
            "code": {"type": "string", "description": "To be entered at the till", "examples": ["A1"]},
            "until": {"type": "string", "format": "date"},
            "at": {"type": "string", "format": "date-time"},
            "loud": {"type": "boolean"},
            "gift": {"$ref": "#/$defs/gift"},
            "gifts": {"type": "array", "items": {"$ref": "#/$defs/gift"}},
            "tags": {"type": "array", "items": {"type": "string"}},
            "note": {"type": ["string", "null"]},
            "account": {"type": "string"},
        },
        "required": ["code", "gift", "note"],
    }
    await api.put("/notification-types/promo.offer", json={"titles": {"en": "Offer"}, "channels": ["sms"], "data_schema": schema})

    answer = (await api.get("/notification-types/promo.offer/variables")).json()

    found = {item["name"]: (item["kind"], item["may_be_empty"]) for item in answer["items"]}
    assert {name: found[name] for name in ("code", "until", "at", "loud", "note", "gift.name", "gift.worth", "gifts", "tags", "data.account")} == {
        "code": ("text", False),
        "until": ("date", True),
        "at": ("moment", True),
        "loud": ("bool", True),
        "note": ("text", True),
        "gift.name": ("text", False),
        "gift.worth": ("number", True),
        "gifts": ("list", True),
        "tags": ("list", True),
        "data.account": ("text", True),
    }
    by_name = {item["name"]: item for item in answer["items"]}
    assert (by_name["code"]["example"], by_name["code"]["description"]) == ("A1", {"ru": "To be entered at the till", "en": "To be entered at the till"})
    assert [(item["name"], item["kind"]) for item in by_name["gifts"]["items"]] == [("name", "text"), ("worth", "number")]
    assert [(item["name"], item["kind"]) for item in by_name["tags"]["items"]] == [("", "text")]
    assert answer["further"] is False


async def test_type_that_nobody_has_described_may_have_further_ones(api):
    await api.put("/notification-types/promo.offer", json={"titles": {"en": "Offer"}, "channels": ["sms"]})

    answer = (await api.get("/notification-types/promo.offer/variables")).json()

    assert answer["further"] is True
    assert {item["name"] for item in answer["items"]} == {name for name, *_ in COMMON} | {"count", "events"}


async def test_schema_that_nests_in_itself_by_references_is_listed_within_bounds(api):
    inner = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20)}}
    schema = {"type": "object", "properties": {}, "$defs": {"d0": inner}}
    for depth in range(1, 9):
        schema["$defs"][f"d{depth}"] = {"type": "object", "properties": {"in": {"$ref": f"#/$defs/d{depth - 1}"}}}
    schema["properties"]["top"] = {"$ref": "#/$defs/d8"}
    put = await api.put("/notification-types/promo.offer", json={"titles": {"en": "Offer"}, "channels": ["sms"], "data_schema": schema})

    assert put.status_code == 201, put.text
    assert (await api.get("/notification-types/promo.offer/variables")).status_code == 200


async def test_variables_of_no_type_and_of_a_stranger(api, as_role):
    assert (await api.get("/notification-types/promo.offer/variables")).status_code == 404
    assert (await (await as_role("billing")).get("/notification-types/payment.received/variables")).status_code == 403
    assert (await (await as_role("viewer")).get("/notification-types/payment.received/variables")).status_code == 200


def test_words_that_are_there_from_the_start_ask_before_they_write():
    kinds = {kind["code"] for kind in BUILTIN}
    never = {"account.name", "account.tariff", "links.cabinet", "links.unsubscribe", "brand.name"}  # what is empty there looks well, too
    warned = [
        (words["type"], words["channel"], words["locale"], warning.detail)
        for words in templates()
        if words["type"] in kinds
        for warning in emptiness(words["type"], None, words["channel"], type("Fields", (), {"mjml": None, **words}))
        if warning.detail.split("`")[1] not in never
    ]

    assert warned == []


def test_builders_account_has_what_the_list_says(values):
    assert set(values()["account"]) == {name.split(".")[1] for name, *_ in COMMON if name.startswith("account.")}
    assert account().number == "100500"
