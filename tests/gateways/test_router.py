"""Which gateway a message takes, by routes and by how the gateways do."""

from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateways.router import Choice, Rank, Road, Route, Router, Standing

A, B, C = (Road(name, "smpp") for name in "abc")
POST = Road("post", "smtp")
ACCOUNTS = [UUID(int=number) for number in range(4_000)]
DOWN, PAUSED, LOST = Standing(is_up=False), Standing(is_open=False), Standing(is_up=False, is_lost=True)


def to(*names, **fields):
    given = {"name": names[0], "gateways": tuple(name if isinstance(name, tuple) else (name, 1) for name in names)}
    return Route(**(given | fields))


def names(router, accounts=ACCOUNTS, address="+79161234567", **more):
    return [router.choose("sms", "x", address, account, **more).name for account in accounts]


def one(router, address="+79161234567", *, code="x", channel="sms", **more):
    road = router.choose(channel, code, address, ACCOUNTS[0], **more)
    return road and road.name


prefixes = st.lists(st.text("0123456789", max_size=6), min_size=1, max_size=12)
numbers = st.text("0123456789", min_size=1, max_size=12)


@given(prefixes, numbers)
@settings(max_examples=500)
def test_longest_matching_prefix_wins_and_among_equals_the_first(prefixes, digits):
    roads = [Road(f"g{number}", "smpp") for number in range(len(prefixes))]
    routes = [to(road.name, prefixes=(prefix,) if prefix else ()) for road, prefix in zip(roads, prefixes, strict=True)]

    chosen = Router(routes, roads).choose("sms", "x", f"+{digits}", ACCOUNTS[0])

    fitting = [(len(prefix), -place) for place, prefix in enumerate(prefixes) if digits.startswith(prefix)]
    assert chosen.name == (f"g{-max(fitting)[1]}" if fitting else "g0")


def test_route_without_a_prefix_comes_after_every_one_that_has_a_fitting_one():
    router = Router([to("a"), to("b", prefixes=("7",)), to("c", prefixes=("7916", "7926"))], [A, B, C])

    assert [one(router, address) for address in ("+79161234567", "+79261234567", "+79031234567", "+4915112345")] == ["c", "c", "b", "a"]


def test_route_takes_only_what_all_of_its_conditions_fit():
    routes = [
        to("a", types=frozenset({"payment.received"}), attributes={"segment": ("vip", "gold")}),
        to("b", operators=frozenset({"mts"})),
        to("c"),
    ]
    router = Router(routes, [A, B, C])

    assert one(router, code="payment.received", attributes={"segment": "gold"}) == "a"
    assert one(router, code="payment.received", attributes={"segment": "home"}) == "c"
    assert one(router, code="service.connected", attributes={"segment": "vip"}) == "c"
    assert one(router, operator="mts") == "b"
    assert one(router, operator="megafon") == "c"


@pytest.mark.parametrize(
    ("value", "wanted", "fits"),
    [
        ("vip", ("vip",), True),
        (["home", "vip"], ("vip",), True),
        (1, (True,), False),
        (True, (True,), True),
        (1.0, (1,), True),
        (None, ("vip",), False),
        ({}, ("vip",), False),
    ],
)
def test_attribute_is_compared_with_its_kind(value, wanted, fits):
    router = Router([to("b", attributes={"segment": wanted})], [A, B])

    assert one(router, attributes={"segment": value}) == ("b" if fits else "a")


def test_without_a_fitting_route_the_first_gateway_of_the_channel_by_name_serves():
    router = Router([to("c", prefixes=("49",))], [C, B, A, POST])

    assert one(router) == "a"
    assert one(router, "s@example.org", channel="email") == "post"
    assert one(Router([], [C, B]), "+7") == "b"
    assert one(Router([], [])) is None


def test_preferred_gateway_serves_as_long_as_it_does_well():
    router = Router([to("b", "a")], [A, B, C])
    seen = []
    for standing in (Standing(), DOWN, PAUSED, LOST):
        router.now = {"b": standing}
        seen.append(one(router))

    assert seen == ["b", "a", "a", "a"]


def test_where_a_route_has_no_gateway_in_good_order_the_next_one_that_fits_serves():
    router = Router([to("a", prefixes=("7916",)), to("b", prefixes=("7",)), to("c", prefixes=("49",))], [A, B, C])
    router.now = {"a": DOWN}

    assert one(router, "+79161234567") == "b"


def test_where_nobody_does_well_the_message_waits_for_the_least_bad_one():
    router = Router([to("a", prefixes=("7916",)), to("b", "c")], [A, B, C])
    ranks = []
    for standings in ({"a": DOWN, "b": DOWN, "c": DOWN}, {"a": PAUSED, "b": PAUSED, "c": LOST}, {"a": PAUSED, "b": PAUSED, "c": PAUSED}):
        router.now = standings
        ranks.append(router.best("sms", "x", "+79161234567", ACCOUNTS[0]))

    assert ranks == [
        Choice(Road("a", "smpp", route="a"), Rank.DOWN),
        Choice(Road("c", "smpp", route="b"), Rank.DOWN),
        Choice(Road("a", "smpp", route="a"), Rank.PAUSED),
    ]


def test_message_of_a_route_whose_gateways_are_all_disabled_waits_and_takes_no_stranger():
    assert one(Router([to("gone", prefixes=("7916",))], [A])) is None
    assert one(Router([to("gone", prefixes=("7916",))], [A]), "+79261234567") == "a"


def test_road_says_what_its_route_says():
    router = Router([to("a", name="moscow", sender="MyISP", price=2), to("b", name="other")], [A, Road("b", "smpp", price=3)])

    assert router.choose("sms", "x", "+7", ACCOUNTS[0]) == Road("a", "smpp", route="moscow", sender="MyISP", price=2)
    router.now = {"a": DOWN}
    assert router.choose("sms", "x", "+7", ACCOUNTS[0]) == Road("b", "smpp", route="other", price=3)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5))
@settings(max_examples=20, deadline=None)
def test_weights_divide_the_accounts_in_proportion(weights):
    roads = [Road(f"g{number}", "smpp") for number in range(len(weights))]
    router = Router([to(*((road.name, weight) for road, weight in zip(roads, weights, strict=True)), name="r", by_weights=True)], roads)

    counts = Counter(names(router))

    for road, weight in zip(roads, weights, strict=True):
        assert counts[road.name] / len(ACCOUNTS) == pytest.approx(weight / sum(weights), abs=0.04)


@given(st.lists(st.integers(1, 9), min_size=3, max_size=5), st.integers(0, 4), st.sampled_from([DOWN, PAUSED, LOST]))
@settings(max_examples=20, deadline=None)
def test_only_the_accounts_of_a_gateway_that_leaves_move_and_all_come_back(weights, leaver, how):
    roads = [Road(f"g{number}", "smpp") for number in range(len(weights))]
    gone = roads[leaver % len(roads)].name
    router = Router([to(*((road.name, weight) for road, weight in zip(roads, weights, strict=True)), name="r", by_weights=True)], roads)
    before = names(router)

    router.now = {gone: how}
    without = names(router)
    router.now = {}

    assert all(now == (then if then != gone else now) and now != gone for then, now in zip(before, without, strict=True))
    assert names(router) == before


@pytest.mark.parametrize("by_weights", [False, True])
def test_failing_gateway_keeps_its_share_of_the_accounts_and_gets_the_others_back_by_and_by(by_weights):
    router = Router([to("a", name="r", by_weights=by_weights), to("b")], [A, B])
    served, before = [], set()
    for share in (0.05, 0.3, 0.7, 1.0):
        router.now = {"a": Standing(share=share)}
        chosen = {account for account, name in zip(ACCOUNTS, names(router), strict=True) if name == "a"}
        assert before <= chosen
        before = chosen
        served.append(len(chosen) / len(ACCOUNTS))

    assert served == pytest.approx([0.05, 0.3, 0.7, 1.0], abs=0.03)


def test_share_counts_without_routes_as_well_and_somebody_else_who_fails_is_better_than_one_who_is_down():
    router = Router([], [A, B])
    router.now = {"a": Standing(share=0.05)}
    assert Counter(names(router))["a"] / len(ACCOUNTS) == pytest.approx(0.05, abs=0.02)

    router.now = {"a": Standing(share=0.05), "b": DOWN}
    assert set(names(router)) == {"a"}


def test_weights_give_a_failing_gateway_less_of_the_route():
    router = Router([to("a", "b", name="r", by_weights=True)], [A, B])
    router.now = {"a": Standing(share=0.25)}

    assert Counter(names(router))["a"] / len(ACCOUNTS) == pytest.approx(0.2, abs=0.04)


@given(st.text(max_size=30), st.lists(st.text(max_size=4), max_size=4))
def test_no_address_breaks_the_choice(address, prefixes):
    router = Router([to("b", prefixes=tuple(prefixes))], [A, B])

    assert one(router, address) in {"a", "b"}


def test_route_does_not_lead_over_a_gateway_of_another_kind():
    assert one(Router([to("post", "b")], [B, POST])) == "b"
    assert one(Router([to("b", channel="email")], [B, POST]), channel="email") is None
