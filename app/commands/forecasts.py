"""`vestnik scan`: a forecast scan now."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.ground import BadInput, Failed, accepted, connected_settings, own_api, run

if TYPE_CHECKING:
    import httpx

KINDS = ("threshold", "exhaustion", "upcoming")
PAUSE = 0.3  # seconds between two looks at a scan


def scan(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="threshold, exhaustion or upcoming")],
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="the day to take as today, as 2026-11-23; left out: today in each zone")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show who would be told, and tell nobody")] = False,
) -> None:
    """Look at every account now. Nobody is told twice; the workers do it, and this command shows how far they are."""
    if kind not in KINDS:
        raise BadInput(f"{kind!r}: there is threshold, exhaustion and upcoming")

    async def work() -> dict[str, Any]:
        async with own_api(connected_settings(), "vestnik scan") as api:
            asked = {"kind": kind, "dry_run": dry_run} | ({"as_of": as_of} if as_of else {})
            run_now = accepted(await api.post("/forecasts/scans", json=asked), kind)
            return await watched(api, run_now)

    show(run(work()))


async def watched(api: "httpx.AsyncClient", found: dict[str, Any]) -> dict[str, Any]:
    """The scan at its end. A bar goes with it."""
    with typer.progressbar(length=100, label=f"{found['kind']}") as bar:
        while True:
            # Two phases, counting and telling; a dry run has the first alone.
            share = found["done_share"] if found["dry_run"] else found["done_share"] / 2 + (0.5 if found["phase"] == "tell" else 0)
            bar.update(max(0, int(share * 100) - bar.pos))
            if found["state"] not in ("queued", "running"):
                return found
            await asyncio.sleep(PAUSE)
            found = accepted(await api.get(f"/forecasts/scans/{found['id']}"), "scan")


def show(found: dict[str, Any]) -> None:
    counts = found["found"]
    told = "would be told" if found["dry_run"] else "told"
    typer.echo(f"{found['state']}: {counts['accounts']} accounts, {counts['told']} {told}, {counts['covered']} told something more serious that day")
    for name, title in (("by_channel", "messages"), ("by_zone", "by zone"), ("not_reached", "not reached")):
        if counts.get(name):
            typer.echo(f"  {title}: " + ", ".join(f"{key} {number}" for key, number in sorted(counts[name].items())))
    if found["dry_run"] and "sms_parts" in counts:
        typer.echo(f"  SMS parts: {counts['sms_parts']}, cost {counts['cost']}")
    for one in found["sample"][:5]:
        typer.echo(f"  {one['account']} {one['channel']}: {one['text'][:160]}")
    if found["state"] == "needs_confirmation":
        raise Failed(
            f"{counts['told']} is far more than the usual {found['usual']}: look at it, then POST /api/v1/forecasts/scans/{found['id']}/confirm (or /refuse)"
        )
    if found["state"] == "failed":
        raise Failed(f"scan {found['id']}: {found['error']}")
