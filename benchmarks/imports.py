"""(e) The billing's accounts, two contacts and three charges each: all new, unchanged, a tenth changed; and balances by events."""

import json
import random
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import processes
from benchmarks.stack import ROOT, VESTNIK, Stack
from benchmarks.whole_path import Peak, spent

PIECE = 256 << 10
EVENTS = 10_000  # in a batch
KNOWN = "known"
NDJSON = {"Content-Type": "application/x-ndjson"}


def all_new(stack: Stack, accounts: int) -> dict[str, Any]:
    """Nobody is known yet."""
    path = _snapshot(stack, f"n{secrets.token_hex(3)}", accounts)
    figures = _measured(stack, path, created=accounts)
    path.unlink()
    return figures


def unchanged(stack: Stack, accounts: int) -> dict[str, Any]:
    """The same file again."""
    return _measured(stack, _known(stack, accounts), unchanged=accounts)


def tenth_changed(stack: Stack, accounts: int) -> dict[str, Any]:
    """The same file, with a newer balance in each tenth line."""
    _known(stack, accounts)
    stack.revision += 1
    path = _snapshot(stack, KNOWN, accounts, stack.revision)
    figures = _measured(stack, path, updated=len(range(0, accounts, 10)))
    path.replace(_known_path(stack))
    return figures


def by_command(stack: Stack, accounts: int) -> dict[str, Any]:
    """All new, by `vestnik import accounts`, from its start to its end."""
    path = _snapshot(stack, f"c{secrets.token_hex(3)}", accounts)
    began = time.perf_counter()
    said = subprocess.run([VESTNIK, "import", "accounts", str(path)], cwd=ROOT, env=stack.env, check=True, capture_output=True, text=True).stdout
    seconds = time.perf_counter() - began
    path.unlink()
    assert f"created {accounts}" in said, said
    return {"accounts": accounts, "rate_per_s": round(accounts / seconds, 1)}


def balances(stack: Stack, accounts: int) -> dict[str, Any]:
    """`balance.changed`, 10,000 events a request, from the first request to the last answer."""
    _known(stack, accounts)
    before, run = processes.cpu_by_kind(stack.family()), secrets.token_hex(4)
    bodies = []
    for at in range(0, accounts, EVENTS):
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        events = [
            {"specversion": "1.0", "id": f"{run}-{n}", "source": "/bench/balances", "type": "balance.changed", "subject": f"known-{n:07}", "time": moment,
             "data": {"balance": f"{100 + n % 900}.00"}}
            for n in range(at, min(at + EVENTS, accounts))
        ]  # fmt: skip
        bodies.append(json.dumps(events).encode())
    began = time.perf_counter()
    for body in bodies:
        answer = stack.api.post("/events", content=body, headers={"Content-Type": "application/cloudevents-batch+json"})
        answer.raise_for_status()
        assert not answer.json()["rejected"], answer.text[:300]
    return {"events": accounts, "rate_per_s": round(accounts / (time.perf_counter() - began), 1), "cpu_us_each": spent(stack, before, accounts)}


def one_by_one(stack: Stack, accounts: int) -> dict[str, Any]:
    """PATCH of a balance, one request after the other."""
    _known(stack, accounts)
    count, chance = min(accounts, 2000), random.Random(5)
    began = time.perf_counter()
    for n in range(count):
        stack.api.patch(f"/accounts/known-{n:07}", json={"balance": f"{chance.randrange(100_000)}.00"}).raise_for_status()
    return {"requests": count, "rate_per_s": round(count / (time.perf_counter() - began), 1)}


def _known_path(stack: Stack) -> Path:
    return Path(stack.home) / "known.ndjson"


def _known(stack: Stack, accounts: int) -> Path:
    """A file whose accounts have been imported."""
    path = _known_path(stack)
    if not path.exists():
        _snapshot(stack, KNOWN, accounts).replace(path)
        _send(stack, path)
    return path


def _snapshot(stack: Stack, prefix: str, accounts: int, revision: int = 0) -> Path:
    path = Path(stack.home) / f"{prefix}-{revision}.ndjson"
    with path.open("wb") as target:
        target.writelines(_line(prefix, n, revision if n % 10 == 0 else 0) for n in range(accounts))
    return path


def _line(prefix: str, n: int, revision: int) -> bytes:
    chance = random.Random(n)
    said = {
        "number": f"{prefix}-{n:07}",
        "name": f"Абонент {n}",
        "status": "active",
        "balance": f"{(n * 7919 + revision * 104_729) % 300_000 / 100:.2f}",
        "balance_as_of": f"2026-01-01T00:{revision:02}:00+03:00",
        "credit_limit": "0.00",
        "currency": "RUB",
        "locale": "ru",
        "timezone": "Europe/Moscow",
        "tariff": "Home 100",
        "threshold": "50.00",
        "contacts": [{"channel": "sms", "address": f"+7916{n:07}"}, {"channel": "email", "address": f"subscriber{n}@example.org"}],
        "charges": [
            {"id": "s1", "title": "Home 100", "amount": f"{chance.randrange(20_000, 60_000) / 100:.2f}", "kind": "monthly", "day": chance.randint(1, 31)},
            {"id": "s2", "title": "TV", "amount": f"{chance.randrange(5_000, 20_000) / 100:.2f}", "kind": "monthly", "day": chance.randint(1, 31), "posted_through": "2026-01-01"},
            {"id": "s3", "title": "Router", "amount": "99.00", "kind": "once", "on": f"2026-{chance.randint(1, 12):02}-15"},
        ],
        "attributes": {"segment": "home"},
    }  # fmt: skip
    return json.dumps(said, ensure_ascii=False).encode() + b"\n"


def _measured(stack: Stack, path: Path, **expected: int) -> dict[str, Any]:
    idle, before, peak = processes.memory_by_kind(stack.family()), processes.cpu_by_kind(stack.family()), Peak(stack)
    peak.start()
    began = time.perf_counter()
    answer = _send(stack, path)
    seconds = time.perf_counter() - began
    peak.over.set()
    size, accounts = path.stat().st_size, answer["received"]
    assert all(answer[name] == count for name, count in expected.items()), answer
    return {
        "accounts": accounts,
        "rate_per_s": round(accounts / seconds, 1),
        "mb_per_s": round(size / seconds / 1e6, 1),
        "cpu_us_each": spent(stack, before, accounts),
        "api_mib_over_idle": round(peak.most.get("api", 0.0) - idle.get("api", 0.0)),
        "peak_mib": {kind: round(used) for kind, used in sorted(peak.most.items())},
    }


def _send(stack: Stack, path: Path) -> dict[str, Any]:
    answer = stack.api.post("/accounts/import", content=_pieces(path), headers=NDJSON, timeout=httpx.Timeout(3600))
    answer.raise_for_status()
    report: dict[str, Any] = answer.json()
    assert not report["rejected_total"], answer.text[:300]
    return report


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while piece := source.read(PIECE):
            yield piece


MEASURES: dict[str, Callable[[Stack, int], dict[str, Any]]] = {
    "import_new": all_new,
    "import_unchanged": unchanged,
    "import_tenth_changed": tenth_changed,
    "import_command": by_command,
    "balance_events": balances,
    "balance_patches": one_by_one,
}
