"""The whole service as an operator runs it: `vestnik up` in processes of its own, an SMSC and a mailbox of ours at its far end, HTTP in between."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from app.children import free_port, is_free
from app.embedded.process import command_of
from app.simulators.mailbox import Mailbox
from app.simulators.smsc import SmscSimulator

WINDOW = 20
RATE = 400
SUBSCRIBERS = 2_000
READERS = 60

ENVIRONMENT = {"VESTNIK_QUIET_HOURS": "00:00-00:00", "VESTNIK_LOG_LEVEL": "warning", "VESTNIK_LOG_FORMAT": "text"}
# Answers are awaited and connections made again in seconds, so that a run is short.
SMPP_PROFILE = {"response_timeout": 5, "reconnect_min": 0.2, "reconnect_max": 1, "bind_timeout": 5}
SMTP_PROFILE = {"reconnect_min": 0.2, "reconnect_max": 1, "retry_backoff_min": 1, "retry_backoff_max": 2}
# What a message may not stay in. An SMS has its receipt to come; nobody reports the delivery of a letter.
UNFINISHED = (("held", None), ("queued", None), ("sending", None), ("accepted", "sms"))


def phone(number: int) -> str:
    return f"+7916{1_000_000 + number}"


SMS_ACCOUNTS = [f"sms-{number}" for number in range(SUBSCRIBERS)]
MAIL_ACCOUNTS = [f"mail-{number}" for number in range(READERS)]
BOTH = "both-1"


def accounts() -> list[dict[str, Any]]:
    """Subscribers with a telephone, readers with a mailbox, and one with both."""
    common = {"status": "active", "balance": "10.00", "currency": "RUB", "locale": "ru", "timezone": "Europe/Moscow"}
    telephones = [{"number": name, "contacts": [{"channel": "sms", "address": phone(number)}]} for number, name in enumerate(SMS_ACCOUNTS)]
    mailboxes = [{"number": name, "contacts": [{"channel": "email", "address": f"{name}@example.org"}]} for name in MAIL_ACCOUNTS]
    both = {"number": BOTH, "contacts": [{"channel": "sms", "address": "+79165550000"}, {"channel": "email", "address": "both@example.org"}]}
    return [common | account for account in (*telephones, *mailboxes, both)]


async def eventually(condition: Callable[[], Any], seconds: float = 60, every: float = 0.02) -> None:
    """Wait until the condition, awaited where it is a coroutine, is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if await found if asyncio.iscoroutine(found) else found:
            return
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen in time")
        await asyncio.sleep(every)


@dataclass
class Run:
    """One scenario's events: its source keeps them apart from everybody else's."""

    source: str
    told: list[str]
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    statuses: list[int] = field(default_factory=list)  # of every request that was answered
    unanswered: int = 0  # requests that ended without an answer
    is_planned: bool = False


@dataclass
class Result:
    """What the service says came of a run, and what its far end saw."""

    events: dict[str, str]  # event id -> account
    messages: list[dict[str, Any]]
    submits: Counter[str]

    @property
    def states(self) -> Counter[str]:
        return Counter(message["state"] for message in self.messages)

    def of(self, state: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["state"] == state]


class Stack:
    """`vestnik up` on a data directory of its own, driven over HTTP alone."""

    def __init__(self, data_dir: Path, smsc: SmscSimulator, mailbox: Mailbox) -> None:
        self.data_dir, self.smsc, self.mailbox = data_dir, smsc, mailbox
        self.port = free_port()
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}/api/v1", timeout=30, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = data_dir / "up.log"

    # -- processes

    async def start(self) -> None:
        """Returns when the API is ready."""
        await eventually(lambda: is_free("127.0.0.1", self.port))
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "app.cli", "up", "--port", str(self.port), "--data-dir", str(self.data_dir)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=os.environ | ENVIRONMENT)
        await eventually(self.is_ready, 120)

    async def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return (await self.client.get(f"http://127.0.0.1:{self.port}/health/ready")).is_success
        except httpx.HTTPError:
            return False

    async def ended(self) -> int:
        """The exit code of `vestnik up`, once it has ended."""
        assert self.process is not None
        await eventually(lambda: self.process.poll() is not None, 60)
        return self.process.returncode

    def pids(self, words: str) -> list[int]:
        """Children of `vestnik up` whose command line has these words."""
        assert self.process is not None
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in listed if words in command_of(int(pid))]

    def kill(self, words: str) -> None:
        (pid,) = self.pids(words)
        os.kill(pid, signal.SIGKILL)

    def server_pid(self, server: str) -> int:
        file = {"postgres": "postgres/data/postmaster.pid", "redis": "redis/redis.pid"}[server]
        return int((self.data_dir / file).read_text().split()[0])

    def kill_everything(self) -> None:
        """All at once, as when the power goes."""
        assert self.process is not None
        servers = [self.server_pid("postgres"), self.server_pid("redis")]
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in servers:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    async def close(self) -> None:
        await self.client.aclose()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, 60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                raise

    # -- set-up, over HTTP

    async def furnish(self) -> None:
        """A key, the two gateways, the subscribers."""
        command = [sys.executable, "-m", "app.cli", "key", "create", "--name", "flow", "--role", "admin"]
        made = await asyncio.to_thread(
            subprocess.run, command, env=os.environ | {"VESTNIK_DATA_DIR": str(self.data_dir)}, capture_output=True, text=True, check=True
        )
        self.client.headers["Authorization"] = f"Bearer {made.stdout.strip()}"
        await self.put_gateways()
        lines = "".join(json.dumps(account) + "\n" for account in accounts())
        done = await self.client.post("accounts/import", content=lines, headers={"Content-Type": "application/x-ndjson"})
        assert done.json()["created"] == SUBSCRIBERS + READERS + 1, done.text

    async def put_gateways(self) -> None:
        smpp = {"kind": "smpp", "host": "127.0.0.1", "port": self.smsc.port, "system_id": "isp", "password": "secret", "sender": "MyISP"}
        smtp = {"kind": "smtp", "host": "127.0.0.1", "port": self.mailbox.port, "tls": "none", "from": "MyISP <noreply@isp.example>", "connections": 2}
        for name, body in (
            ("sms", smpp | {"rate_per_second": RATE, "window": WINDOW, "profile": SMPP_PROFILE}),
            ("post", smtp | {"profile": SMTP_PROFILE}),
        ):
            answer = await self.client.put(f"gateways/{name}", json=body)
            assert answer.is_success, answer.text
        await eventually(lambda: self.smsc.links)

    # -- a run

    async def tell(self, run: Run, *, batch: int = 100, pause: float = 0.0) -> None:
        """Tell of one payment for each account. What gets no 2xx is sent again, as a billing does: duplicates are harmless."""
        for start in range(0, len(run.told), batch):
            body = [event(run.source, account) for account in run.told[start : start + batch]]
            deadline = time.monotonic() + 90
            while not await self._post(run, body):
                assert time.monotonic() < deadline, f"nothing was taken for 90 s: {Counter(run.statuses)}"
                await asyncio.sleep(0.1)
            await asyncio.sleep(pause)

    async def _post(self, run: Run, body: list[dict[str, Any]]) -> bool:
        try:
            answer = await self.client.post("events", json=body)
        except httpx.HTTPError:
            run.unanswered += 1
            return False
        run.statuses.append(answer.status_code)
        if answer.is_success:
            assert answer.json()["rejected"] == []
        return answer.is_success

    async def get(self, path: str, **query: str) -> Any:
        answer = await self.client.get(path, params=query)
        answer.raise_for_status()
        return answer.json()

    async def all_of(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Every page of a list."""
        found: list[dict[str, Any]] = []
        page = await self.get(path, limit="500", **query)
        found += page["items"]
        while page["next_cursor"]:
            page = await self.get(path, limit="500", cursor=page["next_cursor"], **query)
            found += page["items"]
        return found

    async def is_finished(self, run: Run) -> bool:
        """Every event of the run is planned, and none of its messages waits for anything any more."""
        with suppress(httpx.HTTPError):
            run.is_planned = run.is_planned or all(event["state"] == "planned" for event in await self.all_of("events", source=run.source))
            if run.is_planned:
                return not any([await self._any_message(run, state, channel) for state, channel in UNFINISHED])
        return False

    async def _any_message(self, run: Run, state: str, channel: str | None) -> bool:
        query = {"state": state, "limit": "1", "from": run.began.isoformat()} | ({"channel": channel} if channel else {})
        return bool((await self.get("messages", **query))["items"])

    async def result(self, run: Run, seconds: float = 90) -> Result:
        """What came of the run, once it is over."""
        try:
            await eventually(lambda: self.is_finished(run), seconds, every=0.3)
        except AssertionError:
            found = await self._result(run)
            raise AssertionError(f"not finished within {seconds:.0f} s: {found.states}, {len(found.events)} events\n{self.log.read_text()[-3000:]}") from None
        return await self._result(run)

    async def _result(self, run: Run) -> Result:
        events = {event["event_id"]: event["account"] for event in await self.all_of("events", source=run.source)}
        messages = [message for message in await self.all_of("messages", **{"from": run.began.isoformat()}) if message["event_id"] in events]
        return Result(events, messages, Counter(submit.destination for submit in self.smsc.submits))

    def begin(self, name: str, accounts: Sequence[str]) -> Run:
        """A run whose far end has forgotten what it saw before."""
        self.smsc.submits.clear()
        self.smsc.received.clear()
        self.smsc.submitted = 0
        self.mailbox.letters.clear()
        return Run(f"/flow/{name}", list(accounts))

    async def taken(self, run: Run, batches: int) -> None:
        """Wait until so many requests of a run that is being told were answered."""
        await eventually(lambda: len(run.statuses) >= batches, every=0.002)

    async def sent(self, parts: int) -> None:
        """Wait until the SMSC has got so many parts: what happens next, happens in the middle."""
        await eventually(lambda: self.smsc.submitted >= parts, every=0.002)


def event(source: str, account: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"pay-{account}", "source": source, "type": "payment.received", "subject": account, "data": {"amount": "500.00"}}


@asynccontextmanager
async def running() -> AsyncIterator[Stack]:
    """A stack that is up and furnished; at the end nothing of it is left."""
    data_dir = Path(tempfile.mkdtemp(prefix="vst"))
    # The answers take their time, so that there is always something on the wire to be interrupted.
    async with SmscSimulator(answer_delay=0.03, receipt_delay=0.2) as smsc, Mailbox(delay=0.02) as mailbox:
        stack = Stack(data_dir, smsc, mailbox)
        try:
            await stack.start()
            await stack.furnish()
            yield stack
        finally:
            await stack.close()
            shutil.rmtree(data_dir, ignore_errors=True)
