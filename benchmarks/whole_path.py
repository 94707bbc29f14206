"""From the HTTP request to the recorded receipt, on everything real but the far end."""

import json
import secrets
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from benchmarks import processes
from benchmarks.stack import Stack

STUCK = 60.0  # seconds without progress after which a run is given up

SMPP = {"kind": "smpp", "host": "127.0.0.1", "system_id": "bench", "password": "bench", "sender": "Vestnik", "rate_per_second": None, "window": 200}


class Peak(threading.Thread):
    """The most memory that each kind of process had."""

    def __init__(self, stack: Stack) -> None:
        super().__init__(daemon=True)
        self.stack, self.most, self.over = stack, dict[str, float](), threading.Event()

    def run(self) -> None:
        while not self.over.wait(1.0):
            for kind, used in processes.memory_by_kind(self.stack.family()).items():
                self.most[kind] = max(used, self.most.get(kind, 0.0))


def batch(stack: Stack, messages: int) -> dict[str, Any]:
    """(a) Events of 1,000 a request over 4 connections -> SMS submitted -> receipt recorded."""
    return sms(stack, messages, size=1000, connections=4)


def single(stack: Stack, messages: int) -> dict[str, Any]:
    """(b) One event a request over 32 connections."""
    return sms(stack, messages, size=0, connections=32)


def slow_receipts(stack: Stack, messages: int) -> dict[str, Any]:
    """As (a), with an SMSC that allows ten unacknowledged receipts."""
    return sms(stack, messages, size=1000, connections=4, far_end=("--receipt-window", "10"))


def latency(stack: Stack, messages: int) -> dict[str, Any]:
    """From the event's arrival to the claim that its submit_sm follows at once, at a hundred events a second: milliseconds at the median and at 99 %."""
    figures = sms(stack, min(messages, 2000), size=0, connections=8, rate=100)
    taken = []
    for message in _all(stack, figures["gateway"])[:1000]:
        history = stack.api.get(f"/messages/{message['id']}").json()["history"]
        times = {line["state"]: _seconds(line["at"]) for line in history}
        arrived = (UUID(message["event_id"]).int >> 80) / 1000  # RFC 9562, 5.7: the first 48 bits of its id are Unix milliseconds
        taken.append((times["sending"] - arrived) * 1000)
    taken.sort()
    return figures | {"event_to_claim_ms_p50": round(taken[len(taken) // 2], 1), "event_to_claim_ms_p99": round(taken[len(taken) * 99 // 100], 1)}


def email(stack: Stack, messages: int) -> dict[str, Any]:
    """(c) Events of 1,000 a request -> e-mail taken by the mail server."""
    count = min(messages, 5000)
    run = secrets.token_hex(3)
    settings = {"kind": "smtp", "host": "127.0.0.1", "port": stack.far_end("mailbox"), "tls": "none", "from": "Vestnik <noreply@isp.example>", "connections": 4}
    with stack.gateway(f"mail-{run}", **settings) as gateway:
        return run_events(stack, gateway, stack.accounts(f"m{run}", count, "email"), size=1000, connections=4, state="accepted")


def sms(stack: Stack, messages: int, *, size: int, connections: int, rate: float = 0, far_end: tuple[str, ...] = ()) -> dict[str, Any]:
    run = secrets.token_hex(3)
    with ExitStack() as held:
        gateway = held.enter_context(stack.gateway(f"bench-{run}", **SMPP, port=stack.far_end("smsc-simulator", *far_end)))
        stack.wait_bound(gateway)
        numbers = stack.accounts(f"s{run}", messages, "sms")
        return run_events(stack, gateway, numbers, size=size, connections=connections, state="delivered", rate=rate)


def run_events(stack: Stack, gateway: str, numbers: list[str], *, size: int, connections: int, state: str, rate: float = 0) -> dict[str, Any]:
    """Post an event for each account; wait until every message has reached the state."""
    spec = {"port": stack.port, "key": stack.key, "connections": connections, "batch": size, "numbers": numbers, "source": f"/bench/{gateway}", "rate": rate}
    before, peak = processes.cpu_by_kind(stack.family()), Peak(stack)
    peak.start()
    command = [sys.executable, str(Path(__file__).with_name("poster.py"))]
    posted = json.loads(subprocess.run(command, input=json.dumps(spec), check=True, capture_output=True, text=True).stdout)
    assert not posted["bad"], posted["bad"]
    reached = wait_until_all(stack, gateway, state, len(numbers))
    peak.over.set()
    cpu = spent(stack, before, len(numbers))
    return {
        "gateway": gateway,
        "messages": len(numbers),
        "rate_per_s": round(len(numbers) / (reached - posted["first"]), 1),
        "intake_per_s": round(len(numbers) / (posted["last"] - posted["first"]), 1),
        "cpu_us_each": cpu,
        "cpu_us_all": round(sum(cost for kind, cost in cpu.items() if kind != "far end")),
        "peak_mib": {kind: round(used) for kind, used in sorted(peak.most.items())},
    }


def wait_until_all(stack: Stack, gateway: str, state: str, count: int) -> float:
    """The Unix time at which the last message reached the state, by what the database recorded."""
    seen, moved = -1, time.monotonic()
    while time.monotonic() - moved < STUCK:
        reached = reached_by_metrics(stack, gateway, state)
        if reached >= count:
            return max(_seconds(item["updated_at"]) for item in _all(stack, gateway))
        if reached != seen:
            seen, moved = reached, time.monotonic()
        time.sleep(0.2)
    raise SystemExit(f"{gateway}: {seen} of {count} {state}")


def reached_by_metrics(stack: Stack, gateway: str, state: str) -> int:
    """Cheap to ask: the workers' own counters."""
    total = 0.0
    for group in stack.api.get(f"http://127.0.0.1:{stack.port}/metrics/targets").json():
        for target in group["targets"]:
            try:
                text = stack.api.get(f"http://{target}/metrics").text
            except httpx.HTTPError:
                continue
            for line in text.splitlines():
                if line.startswith("vestnik_messages_total") and f'gateway="{gateway}"' in line and f'state="{state}"' in line:
                    total += float(line.rpartition(" ")[2])
    return int(total)


def spent(stack: Stack, before: dict[str, float], count: int) -> dict[str, int]:
    """CPU microseconds for each message, by kind of process."""
    after = processes.cpu_by_kind(stack.family())
    return {kind: round((seconds - before.get(kind, 0.0)) / count * 1e6) for kind, seconds in sorted(after.items())}


def _all(stack: Stack, gateway: str) -> list[dict[str, Any]]:
    items, cursor = [], None
    while True:
        page = stack.api.get("/messages", params={"gateway": gateway, "limit": 500} | ({"cursor": cursor} if cursor else {})).json()
        items += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
