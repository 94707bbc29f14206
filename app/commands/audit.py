"""`vestnik audit ...`: is what the audit says still what was written?"""

import re
from typing import Annotated

import typer

from app.commands.ground import BadInput, Failed, connected_settings, database, run

group = typer.Typer(help="The audit: who changed what.")

HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")
SAID = {
    "changed_or_reordered": "record {id} at {seq} is not what was sealed: it was changed, or it stands in another's place",
    "deleted": "record {id} at {seq} is gone",
    "seal_missing": "the seal of record {seq} is gone",
    "not_sealed": "record {id} was added past the chain",
    "head_not_found": "record {seq} has not the expected hash: the chain was cut off, or made anew",
}


@group.callback()
def options() -> None:
    """Makes `verify` a command of a group, though it is the only one."""


@group.command(epilog="Example: vestnik audit verify --expect 1024:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
def verify(
    expect: Annotated[str | None, typer.Option(metavar="HEAD", help="a head that this command printed before and that you keep elsewhere")] = None,
) -> None:
    """Walk the chain and print its head; name the first record that was changed, deleted, inserted or reordered, and end with 1."""
    from app.core.audit_chain import Head
    from app.core.audit_chain import verify as walk

    given = HEAD.fullmatch(expect.strip()) if expect is not None else None
    if expect is not None and given is None:
        raise BadInput("--expect takes a head as this command prints it: a number, a colon, and 64 hexadecimal digits")

    async def work() -> str:
        async with database(connected_settings()) as db:
            found = await walk(db, Head(int(given[1]), bytes.fromhex(given[2])) if given else None)
        if (broken := found.broken) is not None:
            place = broken.seq if broken.seq is not None else "the end"
            raise Failed(f"the audit is broken: {SAID[broken.what].format(id=broken.record_id, seq=place)}; whole up to {found.head}")
        return f"{found.head.seq} records are as they were sealed, {found.waiting} are not sealed yet; head {found.head}"

    typer.echo(run(work()))
