"""Gateways over the API. Secrets go in and never come out."""

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import audit
from app.core.auth import Caller, MayReadGateways, MayWriteGateways
from app.core.clock import now
from app.core.db import SessionDep
from app.core.errors import Conflict, NotFound, field_invalid
from app.core.http import Guarded
from app.core.page import Page, Paging, encode_cursor
from app.core.preconditions import IfMatch, etag, require_match
from app.core.secrets import SecretBox
from app.gateways.dkim import Dkim
from app.gateways.models import Gateway
from app.gateways.preset import Preset, presets
from app.gateways.profile import Profile
from app.gateways.settings import (
    GatewayIn,
    destination,
    kept_settings,
    key_of,
    moved,
    sealed_key,
    sealed_password,
    sealed_together,
    signs,
    stored,
)
from app.gateways.smpp import SmppSettings
from app.gateways.smtp import SmtpProfile, SmtpSettings
from app.gateways.words import Locale, form, preferred

router = APIRouter(prefix="/gateways", tags=["gateways"], route_class=Guarded)

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
Name = Annotated[str, Path(pattern=NAME, description="Lower-case letters, digits, dot, hyphen, underscore")]

# Addresses below /gateways that are no gateway's.
TAKEN = ("presets", "profile-schema")
ROUTED = sa.text("""
SELECT EXISTS (SELECT FROM routing, jsonb_array_elements(routes) AS route, jsonb_array_elements(route -> 'gateways') AS chosen WHERE chosen ->> 'name' = :name)
""")
UNFINISHED = sa.text("SELECT EXISTS (SELECT FROM outbox WHERE gateway = :name)")


class GatewayOut(BaseModel):
    """The settings as they were given, less the password and the private key of `dkim`; `has_secret` says whether there is a password."""

    model_config = ConfigDict(extra="allow")

    name: str
    kind: str
    enabled: bool
    paused: bool
    has_secret: bool
    revision: int


class WholeGatewayOut(GatewayOut):
    """`effective_profile`: every key with the value that holds, be it given, the preset's or the default; null when the settings cannot be read."""

    effective_profile: dict[str, Any] | None


def shown(gateway: Gateway) -> dict[str, Any]:
    state = {
        "name": gateway.name,
        "enabled": gateway.enabled,
        "paused": gateway.paused,
        "has_secret": sealed_password(gateway) is not None,
        "revision": gateway.revision,
    }
    settings = kept_settings(gateway)
    return (stored(settings) if settings is not None else gateway.settings) | state


def shown_whole(gateway: Gateway) -> WholeGatewayOut:
    settings = kept_settings(gateway)
    effective = settings.profile.model_dump(mode="json") if settings is not None else None
    return WholeGatewayOut.model_validate(shown(gateway) | {"effective_profile": effective})


class PresetsOut(BaseModel):
    items: list[Preset]
    next_cursor: None = None


@router.get("", operation_id="list_gateways", summary="All gateways, by name")
async def list_gateways(caller: MayReadGateways, session: SessionDep, paging: Paging) -> Page[GatewayOut]:
    query = sa.select(Gateway).order_by(sa.column("name")).limit(paging.limit + 1)
    if (after := paging.key(str)) is not None:
        query = query.where(sa.column("name") > after[0])
    rows = (await session.execute(query)).scalars().all()
    more = encode_cursor(rows[paging.limit - 1].name) if len(rows) > paging.limit else None
    return Page(items=[GatewayOut.model_validate(shown(row)) for row in rows[: paging.limit]], next_cursor=more)


@router.get("/profile-schema", operation_id="read_profile_schema", summary="Every key of a gateway and of its profile, as JSON Schema to draw a form from")
async def profile_schema(
    caller: MayReadGateways,
    request: Request,
    locale: Annotated[Locale | None, Query(description="language of titles and descriptions; else by Accept-Language")] = None,
    accept_language: Annotated[str, Header(max_length=1000)] = "",
) -> dict[str, Any]:
    """`smpp` and `smtp` are the schemas of the profiles, `dkim` that of a signature, `gateway` those of the bodies around them, `groups` the parts of the
    form in their order."""
    tongue = locale or preferred(accept_language) or request.app.state.settings.locale
    return form({"smpp": Profile, "smtp": SmtpProfile, "dkim": Dkim}, {"smpp": SmppSettings, "smtp": SmtpSettings}, tongue)


@router.get("/presets", operation_id="list_presets", summary="Named sets of profile keys to start a gateway from")
async def list_presets(caller: MayReadGateways) -> PresetsOut:
    return PresetsOut(items=list(presets().values()))


@router.get("/{name}", operation_id="read_gateway", summary="One gateway")
async def read_gateway(name: Name, caller: MayReadGateways, session: SessionDep, response: Response) -> WholeGatewayOut:
    gateway = await existing(session, name)
    response.headers["ETag"] = etag(gateway.revision)
    return shown_whole(gateway)


@router.put("/{name}", operation_id="put_gateway", summary="Create or change a gateway", responses={201: {"model": WholeGatewayOut, "description": "Created"}})
async def put_gateway(
    name: Name, given: GatewayIn, caller: MayWriteGateways, request: Request, session: SessionDep, response: Response, if_match: IfMatch = None
) -> WholeGatewayOut:
    """A change is taken over by the workers within a second; what is on the wire is settled first. A password or a private key that is left out stays."""
    if name in TAKEN:
        raise field_invalid(("path", "name"), "name_taken", f"{name} has a meaning of its own in addresses: give the gateway another name.")
    gateway, created = await apply(session, request.app.state.secrets, caller, name, given, if_match=if_match, guarded=True)
    response.status_code = 201 if created else 200
    response.headers["ETag"] = etag(gateway.revision)
    return shown_whole(gateway)


async def apply(
    session: AsyncSession,
    secrets: SecretBox,
    caller: Caller | str,
    name: str,
    given: SmppSettings | SmtpSettings,
    *,
    if_match: str | None = None,
    guarded: bool = False,
) -> tuple[Gateway, bool]:
    """Make the gateway as given. The row, and whether it is new. `guarded` asks for If-Match where there is one already."""
    settings, password, key = stored(given), given.password.get_secret_value() if given.password is not None else None, key_of(given)
    sealed, locked = secrets.seal(password) if password else None, secrets.seal(key) if key else None
    fresh = insert(Gateway).values(
        name=name,
        kind=given.kind,
        settings=settings,
        secret=sealed_together(sealed, locked),
        enabled=given.enabled,
        paused=False,
        revision=1,
        created_at=now(),
        updated_at=now(),
    )
    made: Any = (await session.execute(fresh.on_conflict_do_nothing().returning(sa.column("name")))).first()
    gateway = await session.get_one(Gateway, name, with_for_update=True)
    old_sealed, old_locked = sealed_password(gateway), sealed_key(gateway)
    if signs(given) and not key and old_locked is None:
        raise field_invalid(("dkim", "private_key"), "secret_needed", "There is nothing to sign with: give the private key.")
    if made is not None:
        await audit.record(session, caller, "gateway.create", f"gateway:{name}", settings)
        return gateway, True
    if guarded:
        require_match(if_match, gateway.revision)
    says_password = "password" in given.model_fields_set
    new_password = says_password and (password or "") != (secrets.open(old_sealed) if old_sealed is not None else "")
    new_key = bool(key) and (old_locked is None or key != secrets.open(old_locked))
    kept = kept_settings(gateway)
    elsewhere = moved(destination(kept), destination(given)) if kept is not None else ["settings"]
    if elsewhere and old_sealed is not None and not says_password:
        raise field_invalid(
            ("password",), "secret_needed", f"{', '.join(elsewhere)} changed: give the password again, or it could be sent to somebody else's host."
        )
    before = stored(kept) if kept is not None else gateway.settings
    changes: dict[str, Any] = {key: [before.get(key), value] for key, value in settings.items() if before.get(key) != value}
    changes |= {"enabled": [gateway.enabled, given.enabled]} if gateway.enabled != given.enabled else {}
    changes |= ({"password": "changed"} if new_password else {}) | ({"dkim.private_key": "changed"} if new_key else {})
    if gateway.kind != given.kind and await is_in_use(session, name):
        raise Conflict("It has unfinished messages, or a route names it: give the gateway of the other kind a name of its own.", code="gateway_in_use")
    if changes:
        gateway.kind, gateway.settings, gateway.enabled = given.kind, settings, given.enabled
        kept_key = (locked if new_key else old_locked) if signs(given) else None
        gateway.secret = sealed_together(sealed if new_password else old_sealed, kept_key)
        gateway.revision, gateway.updated_at = gateway.revision + 1, now()
        await audit.record(session, caller, "gateway.update", f"gateway:{name}", changes)
        await session.flush()
    return gateway, False


@router.delete("/{name}", operation_id="delete_gateway", summary="Delete a gateway that has no unfinished messages", status_code=204)
async def delete_gateway(name: Name, caller: MayWriteGateways, session: SessionDep) -> None:
    gateway = await existing(session, name, lock=True)
    if (await session.execute(UNFINISHED, {"name": name})).scalar():
        raise Conflict("It has unfinished messages: disable it and wait until they are sent another way or have expired.", code="gateway_in_use")
    if (await session.execute(ROUTED, {"name": name})).scalar():
        raise Conflict("A route names it: take it out of PUT /routes first.", code="gateway_in_use")
    await session.delete(gateway)
    await session.execute(sa.text("DELETE FROM bind_slot WHERE gateway = :name AND until < now()"), {"name": name})
    await audit.record(session, caller, "gateway.delete", f"gateway:{name}", {"kind": [gateway.kind, None], "enabled": [gateway.enabled, None]})


@router.post("/{name}/pause", operation_id="pause_gateway", summary="Stop sending; the bind stays up and receipts are taken")
async def pause(name: Name, caller: MayWriteGateways, session: SessionDep) -> GatewayOut:
    return await _set_paused(session, caller, name, paused=True)


@router.post("/{name}/resume", operation_id="resume_gateway", summary="Send again")
async def resume(name: Name, caller: MayWriteGateways, session: SessionDep) -> GatewayOut:
    return await _set_paused(session, caller, name, paused=False)


async def _set_paused(session: AsyncSession, caller: Caller, name: str, *, paused: bool) -> GatewayOut:
    gateway = await existing(session, name, lock=True)
    if gateway.paused != paused:
        gateway.paused, gateway.updated_at = paused, now()
        await audit.record(session, caller, "gateway.pause" if paused else "gateway.resume", f"gateway:{name}", {"paused": [not paused, paused]})
    return GatewayOut.model_validate(shown(gateway))


async def is_in_use(session: AsyncSession, name: str) -> bool:
    """Whether messages wait for it, or a route leads over it."""
    return bool((await session.execute(UNFINISHED, {"name": name})).scalar() or (await session.execute(ROUTED, {"name": name})).scalar())


async def existing(session: AsyncSession, name: str, *, lock: bool = False) -> Gateway:
    gateway = await session.get(Gateway, name, with_for_update=lock)
    if gateway is None:
        raise NotFound(f"There is no gateway {name}.", code="gateway_not_found")
    return gateway
