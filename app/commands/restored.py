"""`vestnik restored`: the step between loading a backup and starting the workers."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.ground import BadInput, Failed, connected_settings, database, run

if TYPE_CHECKING:
    from app.core.config import Settings


def restored(
    until: Annotated[
        str, typer.Option(metavar="TIME", help="when the lost service sent its last message, as 2026-11-23T15:04:05+03:00; when in doubt, the later time")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what is there, and change nothing")] = False,
) -> None:
    """After a restore and before any worker starts: put in doubt what may have been sent since the backup, so that nothing goes twice. May be repeated."""
    moment, settings = moment_of(until), connected_settings()
    typer.echo(run(looked(settings, moment) if dry_run else settled(settings, moment)))


def moment_of(text: str) -> datetime:
    """An aware time that is not to come: without a zone nobody knows which messages it means."""
    from app.core.clock import now

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadInput(f"--until {text!r}: write it as 2026-11-23T15:04:05+03:00") from None
    if moment.tzinfo is None:
        raise BadInput(f"--until {text!r}: say the zone as well, as 2026-11-23T15:04:05+03:00")
    if moment > now():
        raise BadInput(f"--until {text!r} is still to come")
    return moment


async def looked(settings: "Settings", until: datetime) -> str:
    from app.desk.after_restore import what_is_due

    async with database(settings) as db:
        events, messages = await what_is_due(db, until)
    return f"events not planned yet: {events}; messages that may have gone already: {messages}"


async def settled(settings: "Settings", until: datetime) -> str:
    from app.core.errors import Conflict
    from app.desk.after_restore import settle_the_lost_time

    async with database(settings) as db:
        try:
            done = await settle_the_lost_time(db, settings, until)
        except Conflict as error:
            raise Failed(error.detail) from None
    doubtful = ", ".join(f"{channel} {number}" for channel, number in sorted(done.doubtful.items())) or "none"
    return f"events planned: {done.events}; messages in doubt, not sent again: {doubtful}; the workers may start"
