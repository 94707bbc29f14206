"""`vestnik report ...`: are the reports right?"""

import datetime as dt
from typing import Annotated, Any

import typer

from app.commands.ground import BadInput, Failed, connected_settings, run

group = typer.Typer(help="Reports: check them against the messages.")
MOST = 20  # differences that are shown


@group.callback()
def reports() -> None:
    """One command, and still a group."""


@group.command(epilog="Example: vestnik report recount --from 2026-11-01 --to 2026-11-30")
def recount(
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="the first day")],
    last: Annotated[str, typer.Option("--to", metavar="DATE", help="the last day")],
    *,
    repair: Annotated[bool, typer.Option("--repair", help="append what is missing, so that the reports are right")] = False,
) -> None:
    """Count the messages of these days again, and say where the reports differ. Days whose records retention has dropped are left alone."""
    days = day_of(first, "--from"), day_of(last, "--to")
    if days[1] < days[0]:
        raise BadInput("--to is the last day: it may not be before --from")
    found = run(differences(*days, repair=repair))
    if found["first"] is None and not found["lines"]:
        typer.echo("no records are left of these days: what the reports say of them stands")
        return
    for line in found["lines"][:MOST]:
        named = " ".join(f"{name}={value}" for name, value in line._asdict().items() if value is not None and name not in ("messages", "parts", "cost"))
        typer.echo(f"{named}: messages {line.messages:+d}, parts {line.parts:+d}, cost {line.cost:+f}")
    said = f"from {found['first'] or days[0]} to {days[1]}: {len(found['lines'])} differences"
    if found["lines"] and not repair:
        raise Failed(f"{said}; --repair makes the reports say what the messages say")
    typer.echo(f"{said}, repaired" if found["lines"] else f"{said}: the reports say what the messages say")


def day_of(text: str, option: str) -> dt.date:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError:
        day = dt.date.min
    if not 2000 <= day.year < 3000:
        raise BadInput(f"{option} {text}: write a day as 2026-11-23")
    return day


async def differences(first: dt.date, last: dt.date, *, repair: bool) -> dict[str, Any]:
    from app.core.db import Database
    from app.tracking.reports import recount as counting
    from app.tracking.reports.dimensions import Period

    settings = connected_settings()
    database = Database.of(settings, name="vestnik-report", pool_size=1)
    try:
        async with database.transaction() as session:
            period = Period(first, last, settings.timezone)
            found = await counting.recount(session, period)
            if repair and found.lines:
                await counting.repair(session, period)
            return {"first": found.first, "lines": found.lines}
    finally:
        await database.close()
