"""Which gateway a message takes. Pure: the same routes, the same state of the gateways and the same message give the same road.

Of the routes that fit, the one with the longest prefix is asked first, then the next in order; the first that has a gateway in good order serves.
Where none has one, the message waits for the least bad gateway of all of them: one that fails, one that is down, one that is paused.
A message that no route fits takes the first gateway of its channel by name. So fail-over is the rule, and sharing is what weights are for.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import IntEnum
from hashlib import blake2b
from types import MappingProxyType
from typing import Any
from uuid import UUID

from app.core.wakeups import MAIL, SIMULATIONS, bind_queue
from app.sms.cutting import Cutting

KINDS = {"sms": "smpp", "email": "smtp"}
NO_ATTRIBUTES: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Road:
    """A gateway, and what the route to it says. `cutting` is None where the gateway cuts an SMS in the common way."""

    name: str
    kind: str
    binds: int = 1
    route: str | None = None
    sender: str | None = None
    price: Decimal | None = None
    cutting: Cutting | None = None

    @property
    def queues(self) -> list[str]:
        """Whom to wake when it has work."""
        if self.kind == "simulated":
            return [SIMULATIONS]
        return [MAIL] if self.kind == "smtp" else [bind_queue(self.name, slot) for slot in range(self.binds)]


# The gateway of test keys, of both channels. It is in no table and has no settings, and no gateway can have this name (`gateways/api.NAME`). What is on
# this road stays there: triggers on `message` and `outbox` refuse every other gateway.
SIMULATED = "@simulated"
SIMULATED_ROAD = Road(SIMULATED, "simulated")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a gateway does at one moment."""

    is_open: bool = True  # nobody has paused it
    is_up: bool = True  # it takes messages
    is_lost: bool = False  # it has not for longer than what is queued there should wait
    share: float = 1.0  # of the accounts that it serves while it fails, and on its way back


GOOD = Standing()


@dataclass(frozen=True, slots=True)
class Route:
    """One rule. An empty condition is no condition; `name` is what the message remembers of it."""

    name: str
    channel: str = "sms"
    prefixes: tuple[str, ...] = ()  # digits
    types: frozenset[str] = frozenset()
    attributes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    operators: frozenset[str] = frozenset()  # folded
    gateways: tuple[tuple[str, int], ...] = ()  # name and weight
    by_weights: bool = False
    sender: str | None = None
    price: Decimal | None = None

    def fits(self, code: str, attributes: Mapping[str, Any], operator: str | None) -> bool:
        """Whether it is for such a message, its channel and prefix apart."""
        return (
            (not self.types or code in self.types)
            and (not self.operators or operator in self.operators)
            and all(_has(attributes.get(name), values) for name, values in self.attributes.items())
        )


class Rank(IntEnum):
    """How good a choice is, the best first."""

    READY = 0
    FAILING = 1
    DOWN = 2
    PAUSED = 3


@dataclass(frozen=True, slots=True)
class Choice:
    road: Road
    rank: Rank


@dataclass(frozen=True, slots=True)
class _Way:
    """A route with those of its gateways that are enabled."""

    route: Route
    roads: tuple[tuple[Road, int], ...]


class Router:
    """Routes over gateways that are enabled and send. `now` is how they do; a gateway that it does not name does well."""

    def __init__(self, routes: Sequence[Route] = (), gateways: Iterable[Road] = ()) -> None:
        known = {road.name: road for road in gateways}
        self._known = known
        self._by_name = {channel: tuple(road for _, road in sorted(known.items()) if road.kind == kind) for channel, kind in KINDS.items()}
        self._ways: dict[str, dict[str, list[_Way]]] = defaultdict(lambda: defaultdict(list))
        for route in routes:
            kind = KINDS[route.channel]
            way = _Way(route, tuple((_along(route, known[name]), weight) for name, weight in route.gateways if name in known and known[name].kind == kind))
            for prefix in route.prefixes or ("",):
                self._ways[route.channel][prefix].append(way)
        self._lengths = {channel: sorted({len(prefix) for prefix in ways}, reverse=True) for channel, ways in self._ways.items()}
        self._now: Mapping[str, Standing] = {}
        self._first: dict[str, Choice] = {}  # of a channel without routes, as long as it is the same for every account
        self.asks_operator = any(route.operators for route in routes)
        self.asks_attributes = any(route.attributes for route in routes)
        self.now = {}

    def standing(self, name: str) -> Standing | None:
        """How a gateway does; None when it is disabled or gone, or only receives."""
        return self._now.get(name, GOOD) if name in self._known else None

    def has_other(self, name: str) -> bool:
        """Whether any other gateway of its kind takes messages now."""
        kind = self._known[name].kind
        return any(road.kind == kind and road.name != name and self._is_up(road) for road in self._known.values())

    @property
    def now(self) -> Mapping[str, Standing]:
        return self._now

    @now.setter
    def now(self, standings: Mapping[str, Standing]) -> None:
        self._now = standings
        self._first = {}
        for channel, roads in self._by_name.items():
            # Shares leave it to the account only where somebody's is not the whole.
            if channel not in self._ways and roads and all(standings.get(road.name, GOOD).share >= 1 for road in roads):
                self._first[channel] = min((Choice(road, self._rank(road, UUID(int=0))) for road in roads), key=lambda choice: choice.rank)

    def choose(
        self, channel: str, code: str, address: str, account_id: UUID, attributes: Mapping[str, Any] = NO_ATTRIBUTES, operator: str | None = None
    ) -> Road | None:
        """The road of one message; None when no gateway could ever take it."""
        choice = self.best(channel, code, address, account_id, attributes, operator)
        return choice.road if choice is not None else None

    def best(
        self, channel: str, code: str, address: str, account_id: UUID, attributes: Mapping[str, Any] = NO_ATTRIBUTES, operator: str | None = None
    ) -> Choice | None:
        """The same with how good it is."""
        if (first := self._first.get(channel)) is not None:
            return first
        ways, digits, is_routed, best = self._ways.get(channel), address.removeprefix("+"), False, None
        for length in self._lengths.get(channel, ()):
            for way in ways.get(digits[:length], ()) if ways is not None and len(digits) >= length else ():
                if way.route.fits(code, attributes, operator):
                    is_routed = True
                    choice = self._of_way(way, account_id)
                    if choice is not None and (best is None or choice.rank < best.rank):
                        best = choice
                    if best is not None and best.rank is Rank.READY:
                        return best
        return best if is_routed else self._in_order(self._by_name.get(channel, ()), account_id)

    def _of_way(self, way: _Way, account_id: UUID) -> Choice | None:
        if way.route.by_weights:
            return self._by_weight(way.roads, account_id)
        return self._in_order((road for road, _ in way.roads), account_id)

    def _in_order(self, roads: Iterable[Road], account_id: UUID) -> Choice | None:
        best: Choice | None = None
        for road in roads:
            rank = self._rank(road, account_id)
            if best is None or rank < best.rank:
                best = Choice(road, rank)
                if rank is Rank.READY:
                    break
        return best

    def _by_weight(self, roads: Sequence[tuple[Road, int]], account_id: UUID) -> Choice | None:
        """Rendezvous hashing: an account keeps its gateway as long as that is there, and only the accounts of one that leaves move."""
        up = [(road, weight) for road, weight in roads if self._is_up(road)]
        if not up:
            return self._in_order((road for road, _ in roads), account_id)
        share = {road.name: self._now.get(road.name, GOOD).share for road, _ in up}
        road = max(up, key=lambda one: one[1] * share[one[0].name] / -math.log(_draw(account_id, one[0].name)))[0]
        # Weights move messages between the gateways of a route; where all of them fail, another route may do better.
        is_served = (most := max(share.values())) >= 1 or _draw(account_id, "share") < most
        return Choice(road, Rank.READY if is_served else Rank.FAILING)

    def _is_up(self, road: Road) -> bool:
        standing = self._now.get(road.name, GOOD)
        return standing.is_open and standing.is_up

    def _rank(self, road: Road, account_id: UUID) -> Rank:
        standing = self._now.get(road.name, GOOD)
        if not standing.is_open:
            return Rank.PAUSED
        if not standing.is_up:
            return Rank.DOWN
        return Rank.READY if standing.share >= 1 or _draw(account_id, road.name) < standing.share else Rank.FAILING


def _along(route: Route, road: Road) -> Road:
    return replace(road, route=route.name, sender=route.sender, price=route.price if route.price is not None else road.price)


def _has(value: Any, wanted: tuple[Any, ...]) -> bool:
    """An account's attribute is one of these; of a list, any of its items. True is not 1."""
    if isinstance(value, list):
        return any(_has(item, wanted) for item in value)
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in wanted)


def _draw(account_id: UUID, name: str) -> float:
    """A number between 0 and 1, neither included: even over accounts, always the same for one, independent between names."""
    return (int.from_bytes(blake2b(account_id.bytes + name.encode(), digest_size=6).digest()) + 0.5) / 2**48
