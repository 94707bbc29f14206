"""`vestnik key ...` and `vestnik token`: who may ask."""

from enum import StrEnum
from typing import Annotated

import typer

from app.commands.ground import BadInput, connected_settings, database, run

group = typer.Typer(help="API keys: make, list, rotate and revoke them, and say where their test messages may go.")

SHOWN = "{:<10} {:<9} {:<24} {:<17} {:<17} {}"


class RoleName(StrEnum):
    billing = "billing"
    operator = "operator"
    viewer = "viewer"
    admin = "admin"


@group.command(epilog='Example: vestnik key create --name "billing front end" --role billing')
def create(
    name: Annotated[str, typer.Option(help="what the key is for, shown in lists and in the audit")],
    role: Annotated[RoleName, typer.Option(help="what it may do")],
    network: Annotated[list[str] | None, typer.Option(help="where it may be used, e.g. 10.1.0.0/16; may be repeated; anywhere without")] = None,
    rate: Annotated[float | None, typer.Option(help="requests a second in the long run")] = None,
    burst: Annotated[int | None, typer.Option(help="requests at once; a second's worth without")] = None,
    quota: Annotated[int | None, typer.Option(help="events, or other requests, a day")] = None,
    *,
    test: Annotated[bool, typer.Option("--test", help="what it sends goes to the simulated gateway, and never out")] = False,
) -> None:
    """Make an API key and print it. It is shown this once: the database keeps its hash alone."""
    if not 0 < len(name.strip()) <= 100:
        raise BadInput("--name must have 1 to 100 characters")

    async def work() -> str:
        from pydantic import ValidationError

        from app.desk.keys import KeyIn, make

        limits = {"allowed_networks": network or [], "rate_per_second": rate, "burst": burst, "daily_quota": quota}
        try:
            wanted = KeyIn.model_validate({"name": name, "role": role.value, "test": test, **limits})
        except ValidationError as error:
            fault = error.errors()[0]
            raise BadInput(f"{'.'.join(map(str, fault['loc'])) or 'the key'}: {fault['msg']}") from None
        async with database(connected_settings()) as db, db.transaction() as session:
            key, _ = await make(session, "command line", wanted)
            return key

    typer.echo(run(work()))


@group.command(epilog="Example: vestnik key rotate Ab3dE6gH --overlap-hours 48")
def rotate(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="the 8 characters of the key, as in `vestnik key list`")],
    overlap_hours: Annotated[int, typer.Option(min=0, max=720, help="for how long the secret before is still taken")] = 24,
) -> None:
    """Give a key a new secret and print it. The key keeps its id, its contacts and its limits."""

    async def work() -> str:
        from app.core.errors import AppError
        from app.desk.keys import rotate as give_new

        try:
            async with database(connected_settings()) as db, db.transaction() as session:
                key, _ = await give_new(session, "command line", key_id, overlap_hours)
                return key
        except AppError as error:
            raise BadInput(f"{key_id}: {error.detail}") from None

    typer.echo(run(work()))


@group.command("list", epilog="Example: vestnik key list")
def list_keys() -> None:
    """List the keys: id, role, name, when made, when last used, and whether revoked or expired."""

    async def work() -> None:
        import sqlalchemy as sa

        from app.core.clock import now
        from app.core.models import ApiKey

        async with database(connected_settings()) as db, db.transaction() as session:
            rows = (await session.execute(sa.select(ApiKey).order_by(sa.column("created_at")))).scalars().all()
        typer.echo(SHOWN.format("ID", "ROLE", "NAME", "CREATED", "LAST USED", "STATE"))
        for row in rows:
            state = "revoked" if row.revoked_at else "expired" if row.expires_at and row.expires_at <= now() else "valid"
            used = f"{row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "-"
            state += ", test" if row.test else ""
            typer.echo(SHOWN.format(row.id, row.role, row.name, f"{row.created_at:%Y-%m-%d %H:%M}", used, state))

    run(work())


@group.command(epilog="Example: vestnik key revoke Ab3dE6gH")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="the 8 characters of the key, as in `vestnik key list`")]) -> None:
    """Revoke a key: running servers refuse it within two seconds."""

    async def work() -> None:
        from app.desk.keys import KeyNotFound
        from app.desk.keys import revoke as end

        try:
            async with database(connected_settings()) as db, db.transaction() as session:
                await end(session, "command line", key_id)
        except KeyNotFound:
            raise BadInput(f"there is no key {key_id}: see `vestnik key list`") from None

    run(work())
    typer.echo(f"{key_id} is revoked")


@group.command(epilog="Example: vestnik key contacts Ab3dE6gH --sms +79161234567 --email operator@isp.example")
def contacts(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="the 8 characters of the key, as in `vestnik key list`")],
    sms: Annotated[list[str] | None, typer.Option(help="a phone for test messages; may be repeated")] = None,
    email: Annotated[list[str] | None, typer.Option(help="an address for test letters; may be repeated")] = None,
    *,
    none: Annotated[bool, typer.Option("--none", help="take all of them away")] = False,
) -> None:
    """Say where the test messages of a key may go: there and nowhere else. What is not named is taken away; a key without contacts can test nothing."""
    named = [("sms", address) for address in sms or ()] + [("email", address) for address in email or ()]
    if none == bool(named):
        raise BadInput("name every contact with --sms and --email, or take all of them away with --none")

    async def work() -> list[str]:
        from pydantic import ValidationError

        from app.core.errors import AppError
        from app.desk.keys import KeyContactsIn, set_contacts

        settings = connected_settings()
        try:
            given = KeyContactsIn.model_validate({"contacts": [{"channel": channel, "address": address} for channel, address in named]})
        except ValidationError as error:
            raise BadInput(f"the contacts cannot be taken: {error.errors()[0]['msg']}") from None
        try:
            async with database(settings) as db, db.transaction() as session:
                row = await set_contacts(session, "command line", key_id, given.contacts, settings.phone_region)
                return [contact["address"] for contact in row.contacts]
        except AppError as error:
            raise BadInput(f"{key_id}: {error.detail}") from None

    kept = run(work())
    typer.echo(f"test messages of {key_id} may go to {', '.join(kept)}" if kept else f"test messages of {key_id} may go nowhere")


def token(
    account: Annotated[str, typer.Option(help="the account number that the token is for")],
    ttl: Annotated[int, typer.Option(min=1, max=31_536_000, help="seconds until it expires")] = 3600,
) -> None:
    """Print a cabinet token for one account, signed with the HS256 secret. For local runs and tests: production refuses it."""
    from app.core.auth import cabinet_token
    from app.core.config import load_settings

    settings = load_settings()
    if settings.env == "production":
        raise BadInput("`vestnik token` is for local runs: in production the cabinet's own sign-in issues tokens")
    if not settings.jwt_secret:
        raise BadInput("tokens come from VESTNIK_JWT_JWKS_URL here: whoever holds its private key signs them")
    if not 0 < len(account) <= 64:
        raise BadInput("--account must have 1 to 64 characters")
    typer.echo(cabinet_token(settings, account, ttl))
