"""`vestnik smsc-simulator` and `vestnik mailbox`: the far end alone, for trying things out. What it gets is printed as JSON lines."""

import asyncio
import contextlib
import json
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.ground import BadInput, Failed, run

if TYPE_CHECKING:
    from app.simulators.mailbox import Mailbox, ReceivedLetter

Rate = Annotated[float, typer.Option(min=0, max=1)]
Seconds = Annotated[float, typer.Option(min=0, max=3600)]
SHOWN_CHARACTERS = 4000  # of a letter's text on its line


def smsc_simulator(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one; the first line printed names it")] = 2775,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    system_id: Annotated[str | None, typer.Option(help="the only account that may bind (default: any)")] = None,
    password: Annotated[str | None, typer.Option(help="its password (default: any)")] = None,
    window: Annotated[int | None, typer.Option(min=1, help="submits unanswered on one link; more are refused")] = None,
    rate: Annotated[float | None, typer.Option(min=0.01, help="parts a second on one link; more are throttled")] = None,
    answer_delay: Seconds = 0.0,
    error_rate: Rate = 0.0,
    silence_rate: Rate = 0.0,
    drop_rate: Rate = 0.0,
    receipts: Annotated[bool, typer.Option(help="send delivery receipts")] = True,
    receipt_delay: Seconds = 0.0,
    failure_rate: Annotated[float, typer.Option(min=0, max=1, help="receipts that say UNDELIV")] = 0.0,
    receipt_window: Annotated[int | None, typer.Option(min=1, help="receipts that may be unacknowledged on one link")] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(metavar="SUFFIX=STAT", help="what the receipt says of numbers that end so, e.g. 13=UNDELIV; may be repeated")
    ] = None,
    error: Annotated[
        list[str] | None, typer.Option(metavar="SUFFIX=STATUS", help="command_status for numbers that end so, e.g. 14=0x0B; may be repeated")
    ] = None,
    scenario: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="what happens in which case, rule by rule; docs/simulator.md tells how")] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="write every bind, submit, receipt and acknowledgement as a JSON line")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="speak TLS with this certificate (PEM)")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="and its key (default: in the same file)")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="demand a client certificate of this authority")] = None,
    quiet: Annotated[bool, typer.Option(help="print nothing but the port: the fastest")] = False,
) -> None:
    """Run an SMSC that takes SMS over SMPP 3.4, sends receipts, and misbehaves as told."""
    from app.simulators.smsc import Scenario, serve

    try:
        played = Scenario.read(scenario) if scenario is not None else None
    except ValueError as problem:
        raise BadInput(f"--scenario {problem}") from None
    options: dict[str, Any] = {
        "scenario": played, "log_path": log, "tls_cert": tls_cert, "tls_key": tls_key, "tls_client_ca": tls_client_ca,
        "host": host, "port": port, "system_id": system_id, "password": password, "window": window, "rate": rate, "answer_delay": answer_delay,
        "error_rate": error_rate, "silence_rate": silence_rate, "drop_rate": drop_rate, "receipts": receipts, "receipt_delay": receipt_delay,
        "failure_rate": failure_rate, "receipt_window": receipt_window, "keep_log": False,
        "outcomes": dict(_pair(text, "--outcome", "13=UNDELIV") for text in outcome or []),
        "errors": {suffix: _status(word) for suffix, word in (_pair(text, "--error", "14=0x0B") for text in error or [])},
    }  # fmt: skip
    run(_until_signal(serve(None if quiet else _print, ready=lambda taken: _print({"kind": "listening", "port": taken}), **options), f"{host}:{port}"))


def mailbox(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="SMTP; 0 takes a free one; the first line printed names it")] = 2525,
    host: Annotated[str, typer.Option(help="address to listen on")] = "127.0.0.1",
    http_port: Annotated[int | None, typer.Option(min=0, max=65535, help="serve the letters as JSON on this port")] = None,
    keep: Annotated[int, typer.Option(min=0, help="letters kept for --http-port")] = 1000,
    rule: Annotated[list[str] | None, typer.Option(metavar="ADDRESS=REPLY", help='e.g. "nobody@*=550 5.1.1 No such user"; may be repeated')] = None,
    delay: Seconds = 0.0,
    username: Annotated[str, typer.Option(help="demand AUTH with this name")] = "",
    password: Annotated[str, typer.Option(help="and this password")] = "",
    quiet: Annotated[bool, typer.Option(help="print nothing but the port")] = False,
) -> None:
    """Run a mail server that delivers nowhere: it takes every letter, prints it, and refuses as told."""
    from app.simulators.mailbox import Rule, serve

    for text in rule or []:
        try:
            Rule.parse(text)
        except ValueError as error:
            raise BadInput(f"--rule: {error}") from None

    def listening(box: "Mailbox", reader: int | None) -> None:
        _print({"kind": "listening", "port": box.port, "http_port": reader})

    serving = serve(
        host=host,
        port=port,
        http_port=http_port,
        keep=keep if http_port is not None else 0,
        rules=rule or [],
        delay=delay,
        username=username,
        password=password,
        on_letter=None if quiet else _print_letter,
        on_ready=listening,
    )
    run(_until_signal(serving, f"{host}:{port}"))


def _print(event: dict[str, Any]) -> None:
    typer.echo(json.dumps(event, ensure_ascii=False))


def _print_letter(letter: "ReceivedLetter") -> None:
    shown = {"from": letter.sender, "to": letter.to, "subject": letter.subject, "text": letter.text[:SHOWN_CHARACTERS], "octets": len(letter.raw)}
    _print({"kind": "letter", **shown, "has_html": bool(letter.html)})


def _pair(text: str, option: str, example: str) -> tuple[str, str]:
    suffix, equals, value = text.partition("=")
    if not (suffix.isdecimal() and equals and value):
        raise BadInput(f"{option} {text}: expected the end of a number and a value, like {example}")
    return suffix, value


def _status(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise BadInput(f"--error: {text} is no command_status; write it like 0x0B or 11") from None


async def _until_signal(serving: Coroutine[Any, Any, None], where: str) -> None:
    task = asyncio.ensure_future(serving)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    except OSError as error:
        raise Failed(f"cannot listen on {where}: {error.strerror or error}") from None
