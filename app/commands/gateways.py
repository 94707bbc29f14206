"""`vestnik gateway ...`: what messages go through."""

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.ground import BadInput, Failed, accepted, connected_settings, own_api, run

if TYPE_CHECKING:
    import httpx

group = typer.Typer(help="Gateways: load them from a file, and try them.")

# RFC 9110, 13.1.1 would let `*` stand for "whatever is there"; our API wants the version that was read.
FILE_FORM = "[gateways.NAME] tables with the body of PUT /gateways/NAME, and [[routes]] in their order"


@group.command(epilog="Example: vestnik gateway apply gateways.toml")
def apply(file: Annotated[Path, typer.Argument(metavar="FILE.toml", help=FILE_FORM)]) -> None:
    """Make the gateways of a TOML file so, and its routes, if it has any, all the routes there are. Other gateways stay as they are.

    Safe to repeat: what is so already is left alone."""
    wanted = read_file(file)

    async def work() -> None:
        async with own_api(connected_settings(), "vestnik gateway apply") as api:
            for name, body in wanted.get("gateways", {}).items():
                typer.echo(f"{name}: {await put_gateway(api, name, body)}")
            if "routes" in wanted:
                typer.echo(f"routes: {await put_routes(api, wanted['routes'])}")

    run(work())


def read_file(file: Path) -> dict[str, Any]:
    """The tables of a gateway file, or BadInput with the reason."""
    try:
        wanted = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: {error}") from None
    unknown = sorted(set(wanted) - {"gateways", "routes"})
    if unknown or not wanted or not isinstance(wanted.get("gateways", {}), dict) or not isinstance(wanted.get("routes", []), list):
        raise BadInput(f"{file}: {f'unknown {unknown[0]!r}; ' if unknown else ''}expected {FILE_FORM}")
    return wanted


async def put_gateway(api: "httpx.AsyncClient", name: str, body: dict[str, Any]) -> str:
    """Create the gateway, or change the one that is there where it differs. Returns what was done."""
    there = await api.get(f"/gateways/{name}")
    headers = {"If-Match": there.headers["ETag"]} if there.is_success else {}
    put = await api.put(f"/gateways/{name}", json=body, headers=headers)
    accepted(put, name)
    if not there.is_success:
        return "created"
    return "unchanged" if put.headers["ETag"] == there.headers["ETag"] else "updated"


async def put_routes(api: "httpx.AsyncClient", routes: list[dict[str, Any]]) -> str:
    """Make these all the routes, in this order. Returns what was done."""
    there = await api.get("/routes")
    accepted(there, "routes")
    put = await api.put("/routes", json={"items": routes}, headers={"If-Match": there.headers["ETag"]})
    accepted(put, "routes")
    if put.headers["ETag"] == there.headers["ETag"]:
        return "unchanged"
    return "created" if there.headers["ETag"] == '"0"' else "updated"


@group.command(epilog="Example: vestnik gateway check main")
def check(name: Annotated[str, typer.Argument(metavar="NAME", help="a gateway's name")]) -> None:
    """Try a gateway: bind to the SMSC, or EHLO and sign in at the mail server, and say what came of it. Nothing is sent."""

    async def work() -> dict[str, Any]:
        async with own_api(connected_settings(), "vestnik gateway check") as api:
            found: dict[str, Any] = accepted(await api.post(f"/gateways/{name}/check"), name)
            return found

    result = run(work())
    said = [f"  {line}" for host in result.get("hosts") or [] for line in told(host)]
    line = "\n".join([f"{name}: {result['detail']}{' (the bind that is up)' if result.get('live') else ''}", *said])
    if result.get("ok") is False:
        raise Failed(line)
    typer.echo(line)


def told(host: dict[str, Any]) -> list[str]:
    """What one host of an SMSC said of itself, beside what the sentence about it says already."""
    extra = {key: host[key] for key in ("address", "tls_cipher", "certificate_subject", "certificate_until") if host.get(key)}
    return [f"{host['bind']} at {host['host']}: " + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in extra.items())] if extra else []
