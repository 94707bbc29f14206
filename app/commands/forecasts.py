"""`vestnik scan`: a forecast scan now, or the decision on one that waits for it."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from app.commands.ground import BadInput, Failed, accepted, connected_settings, own_api, run

if TYPE_CHECKING:
    import httpx

KINDS = ("threshold", "exhaustion", "upcoming")
DECISIONS = ("confirm", "refuse")
PAUSE = 0.3  # seconds between two looks at a scan


def scan(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="threshold, exhaustion or upcoming; confirm or refuse, for a scan that waits for it")],
    scan_id: Annotated[str | None, typer.Argument(metavar="[SCAN]", help="with confirm and refuse: the id of the scan")] = None,
    as_of: Annotated[str | None, typer.Option(metavar="DATE", help="the day to take as today, as 2026-11-23; left out: today in each zone")] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="show who would be told, and tell nobody")] = False,
) -> None:
    """Look at every account now. Nobody is told twice; the workers do it, and this command shows how far they are."""
    if kind in DECISIONS:
        if scan_id is None:
            raise BadInput(f"{kind} which scan? vestnik scan {kind} SCAN, with the id that the scan has said")
        if dry_run or as_of:
            raise BadInput(f"{kind} is for a scan that has run: leave --dry-run and --as-of out")
        show(run(decided(kind, scan_id)))
        return
    if kind not in KINDS:
        raise BadInput(f"{kind!r}: there is threshold, exhaustion and upcoming; and confirm and refuse")
    if scan_id is not None:
        raise BadInput(f"{scan_id!r}: a new scan takes no id; confirm and refuse do")
    show(run(asked_for({"kind": kind, "dry_run": dry_run} | ({"as_of": as_of} if as_of else {}))))


async def asked_for(asked: dict[str, Any]) -> dict[str, Any]:
    """A new scan, at its end."""
    async with own_api(connected_settings(), "vestnik scan") as api:
        return await watched(api, accepted(await api.post("/forecasts/scans", json=asked), asked["kind"]))


async def decided(what: str, scan_id: str) -> dict[str, Any]:
    """A scan that has waited: at its end, told to everybody or to nobody."""
    async with own_api(connected_settings(), "vestnik scan") as api:
        # The id is part of an address: nothing else may come with it.
        try:
            known = UUID(scan_id)
        except ValueError:
            raise BadInput(f"{scan_id!r} is no id of a scan") from None
        found = accepted(await api.post(f"/forecasts/scans/{known}/{what}"), f"{what} {known}")
        return found if what == "refuse" else await watched(api, found)


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
    refused = (found["error"] or "").startswith("refused")
    told = "would be told" if found["dry_run"] or found["phase"] == "count" else "told"
    typer.echo(
        f"{'refused' if refused else found['state']}: {counts['accounts']} accounts, {counts['told']} {told}, {counts['covered']} told something more serious that day"
    )
    for name, title in (("by_type", "by type"), ("by_channel", "messages"), ("by_zone", "by zone"), ("not_reached", "not reached")):
        if counts.get(name):
            typer.echo(f"  {title}: " + ", ".join(f"{key} {number}" for key, number in sorted(counts[name].items())))
    if found["dry_run"] and "sms_parts" in counts:
        typer.echo(f"  SMS parts: {counts['sms_parts']}, cost {counts['cost']}")
    for one in found["sample"][:5]:
        typer.echo(f"  {one['account']} {one['channel']}: {one['text'][:160]}")
    if found["state"] == "needs_confirmation":
        raise Failed(f"{counts['told']} is far more than the usual {found['usual']}: look at it, then `vestnik scan confirm {found['id']}` (or refuse)")
    if found["state"] == "failed" and not refused:
        raise Failed(f"scan {found['id']}: {found['error']}")
