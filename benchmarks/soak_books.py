"""The books of a soak: what the far ends say they took and reported, against what the service says became of each message.

Of every message it is asked: was it submitted at all, was any part of it taken twice, was it sent again after a silence, and is its state
one that the far ends' logs allow. Nothing here knows the service but by its API.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINAL = {"DELIVRD": "delivered", "UNDELIV": "undelivered", "REJECTD": "undelivered", "EXPIRED": "expired"}
UNREADABLE = {"empty", "garbage"}
SHOWN = 10


@dataclass(slots=True)
class Part:
    """One part of one message, at whichever gateway it was."""

    submits: list[dict[str, Any]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)  # stats of readable receipts that were acknowledged
    is_named: bool = False  # some of them echo the reference of the message, so that they are understood even where its id is not known

    @property
    def times_taken(self) -> int:
        return sum(line["taken"] for line in self.submits)

    @property
    def went_on_after_silence(self) -> bool:
        """A submit follows one that got no answer."""
        return any(line["status"] is None for line in self.submits[:-1])

    @property
    def final(self) -> str | None:
        """What its receipts come to: a delivery outweighs everything; else the first last word."""
        finals = [FINAL[stat] for stat in self.told if stat in FINAL]
        return "delivered" if "delivered" in finals else finals[0] if finals else None


@dataclass(slots=True)
class Books:
    """`parts`: by number and part. An id names its number and part, so that a receipt finds them."""

    parts: dict[str, dict[int, Part]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Part)))
    totals: dict[str, int] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)

    def read(self, path: Path) -> None:
        """One far end's log. Lines of all far ends must be read before anything is asked."""
        places: dict[str, tuple[str, int]] = {}
        with path.open(encoding="utf-8") as lines:
            for line in map(json.loads, lines):
                kind = line["kind"]
                self.events[kind if kind in ("submit", "receipt", "ack", "bind", "no_receipt") else f"{kind} {line.get('how', '')}"] += 1
                if kind == "submit":
                    number, part = line["to"], line["part"][2] if line["part"] else 1
                    self.totals[number] = line["part"][1] if line["part"] else 1
                    self.parts[number][part].submits.append(line)
                    if line["id"] is not None:
                        places[comparable(line["id"], path)] = (number, part)
                elif kind == "ack" and line["status"] == 0 and line.get("carrier", "both") not in UNREADABLE:
                    number, part = places[line["id"].casefold()]
                    self.parts[number][part].told.append(line["stat"])
                    self.parts[number][part].is_named |= line.get("echo", False)

    def close(self, messages: Iterable[dict[str, Any]]) -> dict[str, Any]:
        """One line of figures, and what is wrong."""
        states: Counter[str] = Counter()
        causes: Counter[str] = Counter()
        wrong: dict[str, list[str]] = defaultdict(list)
        seen: set[str] = set()
        for message in messages:
            number, state = message["address"].removeprefix("+"), message["state"]
            states[state] += 1
            if number in seen:
                wrong["told twice"].append(number)
            seen.add(number)
            parts = self.parts.get(number, {})
            causes[f"{state}: {self._cause(number, parts)}"] += 1
            if any(part.times_taken > 1 for part in parts.values()):
                wrong["taken twice"].append(number)
            if any(part.went_on_after_silence for part in parts.values()):
                wrong["sent again after a silence"].append(number)
            if not self._is_right(number, state, parts):
                wrong[f"{state}, but {self._cause(number, parts)}"].append(number)
        if strangers := set(self.parts) - seen:
            wrong["submitted, but no message of ours"] = sorted(strangers)
        return {
            "states": dict(sorted(states.items())),
            "causes": dict(sorted(causes.items())),
            "far_ends": dict(sorted(self.events.items())),
            "wrong": {name: {"count": len(numbers), "numbers": numbers[:SHOWN]} for name, numbers in wrong.items()},
        }

    def _reported(self, number: str, parts: dict[int, Part]) -> str | None:
        """The state that the receipts make of the whole message, or None while some part has no last word."""
        finals = [parts[part].final if part in parts else None for part in range(1, self.totals.get(number, 1) + 1)]
        if None in finals or not finals:
            return None
        return next((final for final in finals if final != "delivered"), "delivered")

    def _cause(self, number: str, parts: dict[int, Part]) -> str:
        """In few words, what the far ends know of it."""
        if not parts:
            return "never came"
        if reported := self._reported(number, parts):
            return f"reported {reported}"
        last = [part.submits[-1] for part in parts.values()]
        if all(line["taken"] and line["status"] is not None for line in last) and len(parts) == self.totals[number]:
            return "taken, no last word"
        if any(line["status"] for line in last):  # a refusal decides, whatever the other parts met: the message cannot be whole
            return "refused" if all(line["status"] for line in last) else "refused in part"
        return "taken, not answered" if all(line["taken"] for line in last) else "not answered"

    def _is_right(self, number: str, state: str, parts: dict[int, Part]) -> bool:
        cause = self._cause(number, parts)
        match state:
            case "delivered" | "undelivered" | "expired":
                return cause == f"reported {state}"
            case "accepted":
                return cause == "taken, no last word" or (cause == "taken, not answered" and any(part.told for part in parts.values()))
            case "failed":
                return cause in ("refused", "refused in part")
            case "unknown":
                # Any answer may be lost on its way to us. But a receipt that says whose it is clears the doubt up.
                return not (cause.startswith("reported") and len(parts) == 1 and parts[1].is_named)
        return False


def comparable(identity: str, path: Path) -> str:
    """An id of an answer as the log writes it in receipts: the far end `one` answers in hex and reports in decimal."""
    return str(int(identity, 16)) if path.stem.startswith("one") else identity.casefold()
