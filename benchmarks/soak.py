"""`make soak`: many messages through two far ends that drop, throttle, delay, reorder and lie; at the end every message is accounted for.

SOAK_MESSAGES (200,000) sets the size. One line of JSON; the exit code is 1 when a message is lost, was sent twice, or is in a wrong state.
"""

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.soak_books import Books
from benchmarks.stack import Stack

MESSAGES = int(os.environ.get("SOAK_MESSAGES", "200000"))
HERE = Path(__file__).parent
BATCH = 500
QUIET = 15.0  # seconds without a line in any log: longer than every delay of the scenarios
STUCK = 180.0  # seconds without progress after which the soak is given up
EVERY_LONG = 8  # one message in so many has two parts
TIMES = {"response_timeout": 5, "bind_timeout": 5, "enquire_interval": 4, "enquire_timeout": 2, "reconnect_min": 0.2, "reconnect_max": 2, "stable_after": 3}
# Throttled every few seconds, a gateway with the defaults would slow down for good: the soak is about what becomes of messages.
PAUSES = {"throttle_pause_min": 0.2, "throttle_pause_max": 2, "queue_full_pause": 0.5, "throttle_slowdown": 0.05, "throttle_recovery": 1}
PROFILE = TIMES | PAUSES | {"retry_backoff_min": 1, "retry_backoff_max": 4}
GATEWAYS: dict[str, dict[str, Any]] = {
    "one": {"binds": 2, "window": 100, "profile": PROFILE | {"msgid_resp_base": "hex", "msgid_rcpt_base": "dec"}},
    "two": {"binds": 1, "window": 50, "profile": PROFILE | {"msgid_fold": ["case"], "long_messages": "sar"}},
}
ROUTES = [
    {"name": "even", "prefix": "+7916", "gateways": ["one", "two"]},
    {"name": "odd", "prefix": "+7917", "gateways": ["two", "one"]},
]


def main() -> None:
    logs, began = Path(tempfile.mkdtemp(prefix="vestnik-soak-")), time.monotonic()
    with Stack() as stack:
        furnish(stack, logs)
        since = datetime.now(UTC).isoformat()
        numbers = accounts(stack)
        telling = threading.Thread(target=tell, args=(stack, numbers), daemon=True)
        telling.start()
        watch(stack, telling, logs, since)
        messages = all_messages(stack, since)
        took = time.monotonic() - began
        far_ends = stack._far_ends  # noqa: SLF001 - they end with the stack, and their logs are whole only then
    for far_end in far_ends:
        far_end.wait(30)
    books = Books()
    for log in sorted(logs.glob("*.log")):
        books.read(log)
    figures = books.close(messages)
    lost = MESSAGES - len(messages)
    print(json.dumps({"measure": "soak", "messages": MESSAGES, "seconds": round(took), "lost": lost, **figures}, ensure_ascii=False), flush=True)
    if lost or figures["wrong"]:
        print(f"the far ends' logs are in {logs}", file=sys.stderr)
        raise SystemExit(1)
    for log in logs.iterdir():
        log.unlink()
    logs.rmdir()


def furnish(stack: Stack, logs: Path) -> None:
    """The far ends, the gateways to them, and routes that let each stand in for the other."""
    for name, settings in GATEWAYS.items():
        port = stack.far_end("smsc-simulator", "--scenario", str(HERE / f"soak_{name}.toml"), "--log", str(logs / f"{name}.log"))
        body = {"kind": "smpp", "host": "127.0.0.1", "port": port, "system_id": "soak", "password": "soak", "sender": "Vestnik"} | settings
        stack.api.put(f"/gateways/{name}", json=body).raise_for_status()
    answer = stack.api.put("/routes", json={"items": ROUTES}, headers=match_of(stack, "/routes"))
    if answer.is_error:
        raise SystemExit(f"PUT /routes: {answer.status_code} {answer.text}")
    for name in GATEWAYS:
        stack.wait_bound(name)


def match_of(stack: Stack, path: str) -> dict[str, str]:
    tag = stack.api.get(path).headers.get("etag")
    return {"If-Match": tag} if tag else {}


def accounts(stack: Stack) -> list[str]:
    """One subscriber for each message; a long account number makes the message of two parts."""
    names = [f"soak-{n:07d}" + ("-" + "0" * 50 if n % EVERY_LONG == 0 else "") for n in range(MESSAGES)]
    for at in range(0, MESSAGES, 20_000):
        lines = []
        for n in range(at, min(at + 20_000, MESSAGES)):
            common = {"name": "Subscriber", "balance": "100.00", "currency": "RUB", "locale": "ru", "timezone": "Europe/Moscow"}
            lines.append(json.dumps(common | {"number": names[n], "contacts": [{"channel": "sms", "address": f"+791{6 + n % 2}{n:07d}"}]}))
        answer = stack.api.post("/accounts/import", content="\n".join(lines).encode(), headers={"Content-Type": "application/x-ndjson"})
        answer.raise_for_status()
        assert answer.json()["created"] == len(lines), answer.text[:300]
    return names


def tell(stack: Stack, numbers: list[str]) -> None:
    """An event for each; what is not taken is sent again, as a billing does."""
    common = {"specversion": "1.0", "source": "/soak", "type": "payment.received", "time": datetime.now(UTC).isoformat(timespec="seconds")}
    for at in range(0, len(numbers), BATCH):
        events = [common | {"id": f"e{number}", "subject": number, "data": {"amount": "500.00", "method": "card"}} for number in numbers[at : at + BATCH]]
        while True:
            answer = stack.api.post("/events", json=events)
            if answer.status_code == 202 and not answer.json()["rejected"]:
                break
            if answer.status_code not in (429, 503):
                raise SystemExit(f"POST /events: {answer.status_code} {answer.text[:300]}")
            time.sleep(0.5)


def watch(stack: Stack, telling: threading.Thread, logs: Path, since: str) -> None:
    """Until everything is told, nothing waits to be sent, and the far ends have fallen silent."""
    progress, moved, said = Progress(logs), time.monotonic(), time.monotonic()
    while True:
        time.sleep(1)
        now = time.monotonic()
        if progress.moved():
            moved = now
        waiting = telling.is_alive() or any(is_any(stack, state, since) for state in ("held", "queued", "sending"))
        if not waiting and now - moved > QUIET:
            return
        if waiting and now - moved > STUCK:
            states = {state: is_any(stack, state, since) for state in ("held", "queued", "sending")}
            binds = {name: stack.api.get(f"/gateways/{name}/status").json() for name in GATEWAYS}
            print(f"nothing has moved for {STUCK:.0f} s: {states}\n{json.dumps(binds, indent=1)}", file=sys.stderr)
            return
        if now - said > 30:
            said = now
            print(f"{'telling' if telling.is_alive() else 'told'}, {dict(progress.seen)}", file=sys.stderr, flush=True)


class Progress:
    """Follows the logs: binds come and go for ever, but submits and receipts end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._read: Counter[Path] = Counter()
        self.seen: Counter[str] = Counter()

    def moved(self) -> bool:
        """Whether anything of messages was written since the last time."""
        before = self.seen.total()
        for path in self._logs.glob("*.log"):
            with path.open("rb") as log:
                log.seek(self._read[path])
                whole = log.read().rpartition(b"\n")[0]
            self._read[path] += len(whole) + 1 if whole else 0
            for kind in ("submit", "receipt", "ack"):
                self.seen[kind] += whole.count(f'"kind": "{kind}"'.encode())
        return self.seen.total() != before


def is_any(stack: Stack, state: str, since: str) -> bool:
    return bool(stack.api.get("/messages", params={"state": state, "limit": 1, "from": since}).json()["items"])


def all_messages(stack: Stack, since: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = stack.api.get("/messages", params={"limit": 500, "from": since} | ({"cursor": cursor} if cursor else {})).json()
        items += [{"address": item["address"], "state": item["state"]} for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return items


if __name__ == "__main__":
    main()
