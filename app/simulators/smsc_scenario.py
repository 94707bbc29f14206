"""What a scenario file says: how ids are written, and an ordered list of rules. The first rule that fits an event decides about it.

    seed = 7
    ids = {answer = "hex", receipt = "dec"}

    [[rule]]
    on = "submit"                       # bind, submit, receipt, enquire or time
    when = {every = 50, to = "7916"}    # all that is given must be so; nothing given: always
    status = 0x58

Times are seconds; one given as [least, most] is drawn anew each time. All drawing is seeded: the same traffic gets the same behaviour.
"""

import random
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.simulators.smsc_ids import IdForm, Ids
from app.simulators.smsc_wire import Submit

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Span = Seconds | Annotated[list[Seconds], Field(min_length=2, max_length=2)]
Times = Annotated[int, Field(ge=1, le=1_000_000)]
Status = Annotated[int, Field(ge=0, le=0xFFFFFFFF)]
Hex = Annotated[str, Field(pattern=r"^([0-9a-fA-F]{2})*$", max_length=200_000)]
# reset: RST. close: FIN. freeze: no octet in or out any more, and the connection stays. unbind: answers only after their unbind_resp.
LinkAction = Literal["reset", "close", "freeze", "unbind"]
Carrier = Literal["both", "text", "tlv", "payload", "data_sm", "ucs2", "empty", "garbage"]
Form = Literal[
    "standard", "err_hex", "err_empty", "err_four", "seconds", "fourteen", "zeros", "submitdate", "short", "lower", "upper", "full_word", "labels_in_text", "free"
]  # fmt: skip


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class When(_Shape):
    """Which events. `nth`, `every`, `first` and `probability` count those that fit all the rest."""

    nth: Times | list[Times] | None = None
    every: Times | None = None
    first: Times | None = None
    probability: float | None = Field(None, ge=0, le=1)
    after: Seconds = 0
    before: Seconds | None = None
    to: str = Field("", description="what the destination number begins with")
    to_ends: str = Field("", description="what it ends with")
    contains: str = Field("", description="a piece of the text of this part")
    part: Times | None = Field(None, description="of a long message")
    bind: Times | None = Field(None, description="the n-th accepted bind; of an event `bind`, the n-th attempt")


class _Rule(_Shape):
    when: When = Field(default_factory=When)


class _LinkRule(_Rule):
    """What may happen to the connection beside an answer."""

    link: LinkAction | None = None
    send: Hex = Field("", description="octets to write")
    length: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] | None = Field(None, description="write a header of this command_length and a hundred octets")
    command: Status | None = Field(None, description="write a PDU of this command_id")


class OnBind(_LinkRule):
    """`link` and what is written come `link_after` seconds after the answer."""

    on: Literal["bind"]
    status: Status = 0
    body: Literal["header", "nul", "tlv"] = "header"
    silent: bool = False
    delay: Span = 0
    link_after: Span = 0


class OnSubmit(_LinkRule):
    """A submit_sm. With `silent` and with a link that ends, `taken` says that the SMSC has it all the same: its receipt will come."""

    on: Literal["submit"]
    status: Status = 0
    body: Literal["header", "nul", "tlv", "garbage"] = Field("header", description="of a refusal")
    nack: Literal["ours", "zero"] | None = Field(None, description="generic_nack with the submit's sequence number, or with none")
    silent: bool = False
    taken: bool = False
    delay: Span = 0
    copies: Annotated[int, Field(ge=1, le=10)] = Field(1, description="of the answer")
    reorder: Times = Field(1, description="so many answers are collected, and leave in reverse")
    throttle_for: Seconds = Field(0, description="every submit of the next seconds gets this status, or 0x58")


class OnReceipt(_Rule):
    """The receipts of one accepted submit."""

    on: Literal["receipt"]
    states: list[str] = Field(default_factory=list, max_length=10, description="one receipt each, in this order; empty: the usual one")
    delay: Span = 0
    gap: Span = Field(0.05, description="between two states")
    lead: Seconds = Field(0, description="the answer to the submit comes so long after the first receipt")
    copies: Annotated[int, Field(ge=1, le=10)] = 1
    lost: bool = False
    form: Form = "standard"
    carrier: Carrier = "both"
    ids: IdForm | None = Field(None, description="how the id is written, as in `ids`")
    text_id: str | None = Field(None, description="what stands in the text as the id, where the TLV has the right one")
    elsewhere: bool = Field(False, description="over another bind of the account, if there is one")
    burst: Annotated[int, Field(ge=0, le=1_000_000)] = Field(0, description="receipts wait until there are so many, or ten seconds")
    esm_class: Annotated[int, Field(ge=0, le=255)] | None = None
    err: str | None = None
    network_error: Hex = ""
    echo_reference: bool = Field(True, description="TLV 0x0204, when the submit had one")


class OnEnquire(_Rule):
    """Their enquire_link."""

    on: Literal["enquire"]
    silent: bool = True


class Mobile(_Shape):
    """An SMS from a subscriber."""

    source: str = Field(max_length=20)
    destination: str = Field("MyISP", max_length=20)
    text: str = Field(max_length=20_000)
    alphabet: Literal["auto", "gsm", "latin1", "ucs2"] = "auto"
    joining: Literal["udh8", "udh16", "sar", "payload"] = "udh8"
    reverse: bool = Field(False, description="the last part first")


class OnTime(_LinkRule):
    """At a moment after the start, and again `every` seconds; `link` and what is written concern `which` bound links."""

    on: Literal["time"]
    at: Seconds = 0
    every: Annotated[float, Field(gt=0, le=86_400)] | None = None
    times: Times | None = None
    which: Literal["all", "one"] = "all"
    outage: Seconds = Field(0, description="reset everything and take no connection for so long")
    enquire: Annotated[int, Field(ge=0, le=100_000)] = Field(0, description="so many enquire_link at once")
    mobile: Mobile | None = None


Rule = Annotated[OnBind | OnSubmit | OnReceipt | OnEnquire | OnTime, Field(discriminator="on")]


class Scenario(_Shape):
    """A whole file."""

    seed: int = 1
    ids: Ids = Field(default_factory=Ids)
    rule: list[Rule] = Field(default_factory=list, max_length=1000)

    @classmethod
    def read(cls, path: Path) -> Self:
        """ValueError with one sentence that names the file, the rule and the key."""
        try:
            return cls.model_validate(tomllib.loads(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ValueError(f"{path}: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise ValueError(f"{path}: {where}: {first['msg']}") from None

    @classmethod
    def of(cls, *rules: dict[str, Any], **rest: Any) -> Self:
        """The same, put together in a test."""
        return cls.model_validate(rest | {"rule": list(rules)})

    @model_validator(mode="after")
    def _time_has_no_occasion(self) -> Self:
        for number, rule in enumerate(self.rule, 1):
            if rule.on == "time" and rule.when != When():
                raise ValueError(f"rule {number}: a rule on time says `at`, `every` and `times`, and no `when`")
        return self


class Player:
    """Decides event by event. `elapsed` says how many seconds the simulator has been running."""

    def __init__(self, scenario: Scenario, elapsed: "Elapsed") -> None:
        self._elapsed = elapsed
        self._random = random.Random(scenario.seed)
        self._rules: dict[str, list[tuple[Rule, Count]]] = {}
        for rule in scenario.rule:
            self._rules.setdefault(rule.on, []).append((rule, Count()))

    def on_bind(self, attempt: int) -> OnBind | None:
        return self._find("bind", attempt, None)  # type: ignore[return-value]  # rules stand by what they are on

    def on_submit(self, bind: int, submit: Submit) -> OnSubmit | None:
        return self._find("submit", bind, submit)  # type: ignore[return-value]

    def on_receipt(self, bind: int, submit: Submit) -> OnReceipt | None:
        return self._find("receipt", bind, submit)  # type: ignore[return-value]

    def on_enquire(self, bind: int) -> OnEnquire | None:
        return self._find("enquire", bind, None)  # type: ignore[return-value]

    def seconds(self, span: float | list[float]) -> float:
        return self._random.uniform(*span) if isinstance(span, list) else span

    def choice(self, among: list[Any]) -> Any:
        return self._random.choice(among)

    def _find(self, event: str, bind: int, submit: Submit | None) -> Rule | None:
        found = None
        for rule, count in self._rules.get(event, ()):
            # Every rule counts every event that concerns it, also where another one decides.
            if self._fits(rule.when, bind, submit) and count.fits(rule.when, self._random) and found is None:
                found = rule
        return found

    def _fits(self, when: When, bind: int, submit: Submit | None) -> bool:
        elapsed = self._elapsed()
        if elapsed < when.after or (when.before is not None and elapsed >= when.before) or when.bind not in (None, bind):
            return False
        if submit is None:
            return not (when.to or when.to_ends or when.contains or when.part)
        number = submit.destination
        if (when.to and not number.startswith(when.to)) or (when.to_ends and not number.endswith(when.to_ends)):
            return False
        if when.part is not None and (submit.joint is None or submit.joint[2] != when.part):
            return False
        return not when.contains or when.contains in submit.text


class Count:
    """How many events have fitted one rule but for their number."""

    def __init__(self) -> None:
        self._seen = 0

    def fits(self, when: When, chance: random.Random) -> bool:
        self._seen += 1
        if when.nth is not None and self._seen not in (when.nth if isinstance(when.nth, list) else (when.nth,)):
            return False
        if (when.every is not None and self._seen % when.every) or (when.first is not None and self._seen > when.first):
            return False
        return when.probability is None or chance.random() < when.probability


class Elapsed:
    """Seconds since `start()`; zero before it."""

    def __init__(self, clock: Any) -> None:
        self._clock, self._began = clock, None

    def start(self) -> None:
        self._began = self._clock()

    def __call__(self) -> float:
        return 0.0 if self._began is None else float(self._clock() - self._began)
