"""`vestnik import accounts`: the billing's accounts in bulk."""

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.ground import BadInput, Failed, accepted, connected_settings, own_api, run

group = typer.Typer(help="Bulk loads.")

CHUNK = 256 * 1024


@group.command(epilog="Example: vestnik import accounts accounts.ndjson")
def accounts(
    file: Annotated[Path, typer.Argument(metavar="FILE.ndjson", help='one account a line: the body of PUT /accounts/NUMBER with "number" in it')],
) -> None:
    """Load accounts from a file of JSON lines. Rejected lines go to stderr with their numbers; then the exit code is 1."""
    try:
        size = file.stat().st_size
        file.open("rb").close()
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None

    async def work() -> dict[str, Any]:
        async with own_api(connected_settings(), "vestnik import accounts") as api:
            with typer.progressbar(length=size, label="importing", file=sys.stderr) as bar:
                answer = await api.post("/accounts/import", content=_chunks(file, bar.update), headers={"Content-Type": "application/x-ndjson"})
            summary: dict[str, Any] = accepted(answer, str(file))
            return summary

    summary = run(work())
    for line in report(summary):
        typer.echo(line, err=True)
    typer.echo(" ".join(f"{name} {summary[name]}" for name in ("received", "created", "updated", "unchanged")))
    if rejected := summary.get("rejected_total", len(summary["rejected"])):
        raise Failed(f"{rejected} of {summary['received']} lines were rejected")


async def _chunks(file: Path, step: Any) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk
            step(len(chunk))


def report(summary: dict[str, Any]) -> Iterator[str]:
    """A line for each rejection that the answer lists."""
    for rejection in summary["rejected"]:
        yield f"line {rejection['line']}: {rejection['code']}: {rejection['detail']}"
    missing = summary.get("rejected_total", 0) - len(summary["rejected"])
    if missing > 0:
        yield f"and {missing} more"
