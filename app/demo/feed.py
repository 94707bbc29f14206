"""The live feed: one line for each thing that happens, as it happens."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer

WIDTH = 118


class Feed:
    """Prints what goes in, what the far ends got, and what became of the messages."""

    def say(self, kind: str, text: str) -> None:
        line = " ".join(text.split())
        clock = datetime.now().astimezone().strftime("%H:%M:%S")
        typer.echo(f"{clock}  {kind:<8} {line if len(line) <= WIDTH else line[: WIDTH - 1] + '…'}")

    def far_end(self, line: str) -> None:
        """One JSON line of a simulator."""
        try:
            event = json.loads(line)
        except ValueError:
            self.say("simulator", line)
            return
        match event.get("kind"):
            case "message":
                self.say("SMS", f"{event['from']} -> {event['to']}  [{event['encoding']}, {_parts(event['parts'])}]  {event['text']}")
            case "receipt":
                self.say("receipt", f"{event['to']}  {event['stat']}")
            case "letter":
                kind = "HTML and text" if event["has_html"] else "text"
                self.say("e-mail", f"{event['from']} -> {event['to']}  [{event['octets']} octets, {kind}]  {event['subject']}")

    def message(self, message: Mapping[str, Any]) -> None:
        reason = f" ({message['reason']})" if message.get("reason") else ""
        self.say("message", f"{message['account']}  {message['type']} by {message['channel']}: {message['state']}{reason}")


def _parts(count: int) -> str:
    return "1 part" if count == 1 else f"{count} parts"


def table(rows: list[dict[str, Any]]) -> str:
    """What was sent and what became of it, one row a message."""
    heads = ("ACCOUNT", "TYPE", "CHANNEL", "ADDRESS", "PARTS", "STATE", "EXPECTED", "")
    lines = [heads, *(_row(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    state = f"{row['state']} ({row['reason']})" if row.get("reason") else row["state"]
    verdict = "ok" if row["state"] == row["expected"] else "WRONG"
    return (row["account"], row["type"], row["channel"], row["address"], str(row.get("segments") or "-"), state, row["expected"], verdict)
