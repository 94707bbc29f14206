"""The demonstration itself: set up, post events, watch every message to its end."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import uuid4

import httpx
import typer

from app.children import free_port
from app.core.auth import cabinet_token, create_key
from app.core.config import Settings
from app.core.db import Database
from app.demo.feed import Feed, table
from app.demo.script import (
    BALANCES,
    BATCH,
    DEAD_MAIL,
    LONG_SMS,
    LONG_SMS_TEXT,
    MAILBOX_OPTIONS,
    REMINDED,
    SCANS,
    SINGLE,
    SMSC_OPTIONS,
    SOON,
    STRANGER,
    SUBSCRIBERS,
    Happening,
    due_on,
    expected_state,
    zone_with_day,
)
from app.embedded.process import ServerError

SMS, MAIL = "demo-sms", "demo-mail"
BOUND_WITHIN = 20.0
DONE_WITHIN = 40.0
FINAL = frozenset({"delivered", "undelivered", "expired", "failed", "cancelled"})


class DemoError(ServerError):
    """The demonstration cannot be given: one sentence."""


class Stage(Protocol):
    """What the demonstration needs of the running service."""

    settings: Settings

    @property
    def own_url(self) -> str: ...

    def start_simulator(self, name: str, words: list[str], on_line: Callable[[str], None]) -> object: ...


async def play(run: Stage, *, exit_when_done: bool) -> int:
    """Show the service at work. Returns 0 when every message ended as it must, else 1; without `exit_when_done` it stays until it is cancelled."""
    feed = Feed()
    ports = start_far_ends(run, feed)
    operator, admin = await make_keys(run.settings)
    headers = {"Authorization": f"Bearer {admin}"}
    async with httpx.AsyncClient(base_url=f"{run.own_url}/api/v1", headers=headers, timeout=10, trust_env=False) as api:
        await refuse_real_gateways(api)
        await make_gateways(api, ports)
        await make_template(api)
        await make_accounts(api)
        await wait_for_bind(api)
        introduce(run.settings, operator)
        source = await post_events(api, feed)
        before = await post_balances(api, source, feed)
        await run_scans(api, feed)
        rows = await watch_to_the_end(api, source, before, feed)
        is_good = conclude(rows)
        if exit_when_done:
            return 0 if is_good else 1
        typer.echo("\nEverything keeps running: post events of your own, the feed goes on. Ctrl-C stops.")
        await keep_watching(api, feed)
    return 0


def start_far_ends(run: Stage, feed: Feed) -> tuple[int, int]:
    """The ports of the simulators (SMSC, mailbox)."""
    smsc, mailbox = free_port(), free_port()
    run.start_simulator("smsc-simulator", ["smsc-simulator", "--port", str(smsc), *SMSC_OPTIONS], feed.far_end)
    run.start_simulator("mailbox", ["mailbox", "--port", str(mailbox), *MAILBOX_OPTIONS], feed.far_end)
    typer.echo(f"  SMSC simulator on port {smsc}, mailbox on port {mailbox}")
    return smsc, mailbox


async def make_keys(settings: Settings) -> tuple[str, str]:
    """An operator's key to show, and an administrator's for the set-up."""
    database = Database.of(settings, name="vestnik-demo", pool_size=1)
    try:
        async with database.transaction() as session:
            operator, _ = await create_key(session, "demo operator", "operator")
            admin, _ = await create_key(session, "demo set-up", "admin")
    finally:
        await database.close()
    return operator, admin


async def refuse_real_gateways(api: httpx.AsyncClient) -> None:
    """A demonstration must not send through somebody's real gateway, which routing might prefer to ours."""
    listed = (await call(api, "GET", "/gateways"))["items"]
    real = [gateway["name"] for gateway in listed if gateway["enabled"] and gateway["name"] not in (SMS, MAIL)]
    if real:
        raise DemoError(
            f"this data directory has gateways of its own ({', '.join(real)}) and the demo must not send through them: choose another with --data-dir"
        )


async def make_gateways(api: httpx.AsyncClient, ports: tuple[int, int]) -> None:
    sms = {"kind": "smpp", "system_id": "demo", "password": "demo", "sender": "MyISP", "rate_per_second": 50, "window": 10, "binds": 1}
    mail = {"kind": "smtp", "username": "", "password": "", "tls": "none", "from": "MyISP <noreply@isp.example>", "connections": 2}
    for name, body, port in ((SMS, sms, ports[0]), (MAIL, mail, ports[1])):
        there = await api.get(f"/gateways/{name}")
        match = {"If-Match": there.headers["ETag"]} if there.is_success else {}
        await call(api, "PUT", f"/gateways/{name}", json=body | {"host": "127.0.0.1", "port": port, "enabled": True}, headers=match)
    typer.echo(f"  gateways {SMS} and {MAIL}")


async def make_template(api: httpx.AsyncClient) -> None:
    """An operator's own words for one type, once: a second demonstration finds them published."""
    listed = (await call(api, "GET", "/templates", params=LONG_SMS))["items"]
    template = listed[0] if listed else await call(api, "POST", "/templates", json=LONG_SMS)
    if template["published_version"] is None:
        version = await call(api, "POST", f"/templates/{template['id']}/versions", json={"text": LONG_SMS_TEXT})
        await call(api, "POST", f"/templates/{template['id']}/versions/{version['version']}/publish")
    typer.echo(f"  a template of the operator's own for {LONG_SMS['type']} by SMS")


async def make_accounts(api: httpx.AsyncClient) -> None:
    zone = zone_with_day(datetime.now(UTC))
    for subscriber in SUBSCRIBERS:
        await call(api, "PUT", f"/accounts/{subscriber.number}", json=subscriber.body(zone))
    # In an earlier demonstration the mail server has called one of them dead; this one wants to show it again.
    await api.delete("/suppressions", params={"channel": "email", "address": DEAD_MAIL, "reason": "hard_bounce"})
    typer.echo(f"  {len(SUBSCRIBERS)} accounts in {zone}, where it is day")


async def wait_for_bind(api: httpx.AsyncClient) -> None:
    deadline = asyncio.get_running_loop().time() + BOUND_WITHIN
    while True:
        status = await call(api, "GET", f"/gateways/{SMS}/status")
        if any(bind["state"] == "bound" for bind in status["binds"]):
            typer.echo(f"  {SMS} is bound")
            return
        if asyncio.get_running_loop().time() > deadline:
            raise DemoError(f"{SMS} was not bound within {BOUND_WITHIN:.0f} s: the log above says why")
        await asyncio.sleep(0.1)


def introduce(settings: Settings, operator: str) -> None:
    subscriber = SUBSCRIBERS[0].number
    typer.echo(f"\n  API and its documentation   {settings.base_url}/docs")
    typer.echo(f"  operator key                {operator}")
    if settings.jwt_secret:
        typer.echo(f"  cabinet token of {subscriber}     {cabinet_token(settings, subscriber, 86_400)}")
    typer.echo("  Ctrl-C stops everything\n")


async def post_events(api: httpx.AsyncClient, feed: Feed) -> str:
    """Post the sample events in all three modes of CloudEvents. Returns their source, which is new with every run."""
    source = f"/demo/{uuid4().hex[:8]}"
    for number, happening in enumerate(SINGLE):
        event = as_event(source, f"single-{number}", happening)
        if number % 2:
            await call(api, "POST", "/events", content=json.dumps(event), headers={"Content-Type": "application/cloudevents+json"})
        else:
            attributes = {f"ce-{name}": value for name, value in event.items() if name != "data"}
            await call(api, "POST", "/events", content=json.dumps(event["data"]), headers=attributes | {"Content-Type": "application/json"})
        feed.say("event", f"{happening.number}  {happening.type} ({'structured' if number % 2 else 'binary'} mode)")
    batch = [as_event(source, f"batch-{number}", happening) for number, happening in enumerate(BATCH)]
    # One that came before, and one of an account that nobody knows.
    batch += [as_event(source, "single-0", SINGLE[0]), as_event(source, "stranger", STRANGER)]
    answer = await call(api, "POST", "/events", content=json.dumps(batch), headers={"Content-Type": "application/cloudevents-batch+json"})
    for happening in BATCH:
        feed.say("event", f"{happening.number}  {happening.type} (batch mode)")
    refused = ", ".join(f"{rejection['id']}: {rejection['code']}" for rejection in answer["rejected"])
    feed.say("batch", f"{answer['accepted']} accepted, {answer['duplicates']} duplicate, {len(answer['rejected'])} rejected ({refused})")
    return source


async def post_balances(api: httpx.AsyncClient, source: str, feed: Feed) -> set[str]:
    """Post balances that make reminders due, and wait until they are planned. Returns the reminders that there were before."""
    before = {event["event_id"] for number, kind in REMINDED for event in await events_of(api, number, kind)}
    source, began = f"{source}/balances", datetime.now(UTC)
    batch = [as_event(source, f"balance-{n}", happening, began + timedelta(milliseconds=n)) for n, happening in enumerate(BALANCES)]
    await call(api, "POST", "/events", content=json.dumps(batch), headers={"Content-Type": "application/cloudevents-batch+json"})
    for happening in BALANCES:
        feed.say("event", f"{happening.number}  {happening.type} to {happening.data['balance']}")
    deadline = asyncio.get_running_loop().time() + BOUND_WITHIN
    while any(event["state"] == "pending" for event in (await call(api, "GET", "/events", params={"source": source}))["items"]):
        if asyncio.get_running_loop().time() > deadline:
            raise DemoError(f"events were not planned within {BOUND_WITHIN:.0f} s: the log above says why")
        await asyncio.sleep(0.1)
    return before


async def run_scans(api: httpx.AsyncClient, feed: Feed) -> None:
    """Look at every account, as the clock does once a day in each zone; whom it has been before, nobody is told twice."""
    for kind in SCANS:
        run = await call(api, "POST", "/forecasts/scans", json={"kind": kind})
        deadline = asyncio.get_running_loop().time() + BOUND_WITHIN
        while run["state"] in ("queued", "running") and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.1)
            run = await call(api, "GET", f"/forecasts/scans/{run['id']}")
        if run["state"] != "done":
            raise DemoError(f"the scan {kind} is {run['state']} ({run['error'] or 'no error'}): the log above says why")
        feed.say("scan", f"{kind}: {run['found']['accounts']} accounts, {run['found']['told']} to be told")


async def events_of(api: httpx.AsyncClient, number: str, kind: str) -> list[dict[str, Any]]:
    """The newest events of one type of an account."""
    found: list[dict[str, Any]] = (await call(api, "GET", "/events", params={"account": number, "type": kind, "limit": 10}))["items"]
    return found


def as_event(source: str, event_id: str, happening: Happening, when: datetime | None = None) -> dict[str, Any]:
    at = (when or datetime.now(UTC)).isoformat(timespec="milliseconds")
    known = {"specversion": "1.0", "id": event_id, "source": source, "type": happening.type, "subject": happening.number, "time": at}
    return known | {"datacontenttype": "application/json", "data": happening.data}


async def watch_to_the_end(api: httpx.AsyncClient, source: str, before: set[str], feed: Feed) -> list[dict[str, Any]]:
    """Follow the messages of these events, and the reminders that were not there before, until each has ended, or the time is over. Returns them as they stand then, with what was expected."""
    wanted = len(SINGLE) + len(BATCH) + len(REMINDED)
    deadline = asyncio.get_running_loop().time() + DONE_WITHIN
    planned: dict[str, list[str]] = {}
    rows: dict[str, dict[str, Any]] = {}
    seen: dict[str, str] = {}
    while asyncio.get_running_loop().time() < deadline:
        if len(planned) < wanted:
            planned |= await planned_messages(api, source) | await reminder_messages(api, before)
        for message_id in [message_id for ids in planned.values() for message_id in ids if not has_ended(rows.get(message_id))]:
            row = rows[message_id] = await call(api, "GET", f"/messages/{message_id}")
            row["expected"] = expected_state(row["channel"], row["address"])
            show_change(row, seen, feed)
        if len(planned) == wanted and all(has_ended(row) for row in rows.values()):
            break
        await asyncio.sleep(0.2)
    missing = wanted - sum(1 for ids in planned.values() if ids)
    nothing = {"id": "", "account": "-", "type": "-", "channel": "-", "address": "-", "state": "missing", "expected": "planned"}
    return [*rows.values(), *([nothing] * missing)]


def has_ended(row: dict[str, Any] | None) -> bool:
    # An SMS that is `accepted` waits for its receipt; an e-mail has no other end.
    return row is not None and (row["state"] == row["expected"] or row["state"] in FINAL)


async def planned_messages(api: httpx.AsyncClient, source: str) -> dict[str, list[str]]:
    """The messages of each event of this source that has been planned."""
    return await messages_of(api, (await call(api, "GET", "/events", params={"source": source, "limit": 100}))["items"])


async def reminder_messages(api: httpx.AsyncClient, before: set[str]) -> dict[str, list[str]]:
    """The messages of each new reminder. A charge is announced once: in a second demonstration of one day, it is the first one's."""
    due = due_on(zone_with_day(datetime.now(UTC)), SOON).isoformat()
    reminders = []
    for number, kind in REMINDED:
        told = [event for event in await events_of(api, number, kind) if event["data"].get("due_on") == due or event["event_id"] not in before]
        reminders += told[:1]
    return await messages_of(api, reminders)


async def messages_of(api: httpx.AsyncClient, events: list[dict[str, Any]]) -> dict[str, list[str]]:
    """By event, for those that are planned."""
    planned = {}
    for event in events:
        view = await call(api, "GET", f"/events/{event['event_id']}")
        if view["state"] == "planned":
            planned[view["event_id"]] = [decision["message_id"] for decision in view["decisions"] if decision["outcome"] == "planned"]
    return planned


def show_change(row: dict[str, Any], seen: dict[str, str], feed: Feed) -> None:
    if seen.get(row["id"]) != row["state"]:
        seen[row["id"]] = row["state"]
        feed.message(row)


def conclude(rows: list[dict[str, Any]]) -> bool:
    """Print the table and the verdict. Whether every message ended as it must."""
    typer.echo("\n" + table(sorted(rows, key=lambda row: (row["account"], row["type"], row["channel"]))))
    wrong = sum(row["state"] != row["expected"] for row in rows)
    typer.echo(f"\n{len(rows)} messages: " + ("every one ended as it must" if rows and not wrong else f"{wrong} did not end as they must"))
    return bool(rows) and not wrong


async def keep_watching(api: httpx.AsyncClient, feed: Feed) -> None:
    """Show what becomes of every message from now on."""
    seen: dict[str, str] | None = None
    while True:
        try:
            listed = (await call(api, "GET", "/messages", params={"limit": 100}))["items"]
        except (DemoError, httpx.HTTPError):
            listed = []  # the API is being started again
        if seen is None:
            seen = {row["id"]: row["state"] for row in listed}
        for row in reversed(listed):
            show_change(row, seen, feed)
        await asyncio.sleep(1)


async def call(api: httpx.AsyncClient, method: str, path: str, **more: Any) -> Any:
    """The body of a good answer; anything else ends the demonstration with the problem's own words."""
    answer = await api.request(method, path, **more)
    if not answer.is_success:
        raise DemoError(f"{method} {path} answered {answer.status_code}: {answer.text[:500]}")
    return answer.json() if answer.content else None
