"""What stands in the audit for a personal value: a keyed hash by which a known value is recognised, and from which an unknown one cannot be found.

The key (pepper) is 32 random octets in `audit_pepper`, sealed with the newest of VESTNIK_SECRET_KEYS. A rotation of those seals it anew and changes no
hash. Where no listed key opens it any more, a new one is made: a hash names its pepper, `hmac:<pepper>:<16 hex digits>`, so that both can stand side by side.
"""

import hashlib
import hmac
import secrets
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from sqlalchemy.ext.asyncio import AsyncSession

KEPT = sa.text("SELECT id, sealed FROM audit_pepper ORDER BY created_at DESC, id")
# Of two that make the first one at once, the second waits for the lock and finds the other's.
ONE_AT_A_TIME = sa.text("SELECT pg_advisory_xact_lock(hashtext('vestnik audit pepper'))")
ADD = sa.text("INSERT INTO audit_pepper (id, sealed, created_at) VALUES (:id, :sealed, clock_timestamp())")
SEAL_ANEW = sa.text("UPDATE audit_pepper SET sealed = :sealed WHERE id = :id")


async def hashed(session: AsyncSession, value: Any) -> Any:
    """What stands for a personal value. Of a pair, before and after, each by itself; of nothing, nothing."""
    name, pepper = next(iter((await peppers(session)).items()))
    if isinstance(value, list) and len(value) == 2:
        return [None if one is None else _hmac(pepper, one, name) for one in value]
    return None if value is None else _hmac(pepper, value, name)


async def forms_of(session: AsyncSession, value: Any) -> list[str]:
    """Every way in which this value may stand in the audit: by each pepper that can be opened, and as it stood before there were peppers of their own."""
    older = [hashlib.sha256(b"audit:" + key.encode()).digest() for key in _keys(session)]
    return [_hmac(pepper, value, name) for name, pepper in (await peppers(session)).items()] + [_hmac(pepper, value) for pepper in older]


async def peppers(session: AsyncSession) -> dict[str, bytes]:
    """Those that can be opened, the newest first; when there is none, one is made in the session's transaction. Read once by each process."""
    kept: dict[str, bytes] = session.info["kept"]  # the same for all sessions of a Database
    if kept:
        return kept
    if "made" in session.info:
        return session.info["made"]  # type: ignore[no-any-return]
    if found := await _opened(session):
        kept.update(found)
        return kept
    await session.execute(ONE_AT_A_TIME)
    if found := await _opened(session):
        kept.update(found)
        return kept
    name, pepper = secrets.token_hex(4), secrets.token_bytes(32)
    await session.execute(ADD, {"id": name, "sealed": Fernet(_keys(session)[0]).encrypt(pepper)})
    # For this session alone: its transaction may come to nothing, and with it the pepper of hashes that a later one would write.
    session.info["made"] = {name: pepper}
    return session.info["made"]  # type: ignore[no-any-return]


async def _opened(session: AsyncSession) -> dict[str, bytes]:
    keys = _keys(session)
    every, newest = MultiFernet([Fernet(key) for key in keys]), Fernet(keys[0])
    found: dict[str, bytes] = {}
    for name, sealed in (await session.execute(KEPT)).all():
        try:
            found[name] = every.decrypt(bytes(sealed))
        except InvalidToken:
            continue
        try:
            newest.decrypt(bytes(sealed))
        except InvalidToken:
            await session.execute(SEAL_ANEW, {"id": name, "sealed": newest.encrypt(found[name])})
    return found


def _keys(session: AsyncSession) -> list[str]:
    keys = [key.strip() for key in str(session.info["secret_keys"]).split(",") if key.strip()]
    if not keys:
        raise LookupError("this Database was opened without VESTNIK_SECRET_KEYS: the audit cannot hash personal values")
    return keys


def _hmac(pepper: bytes, value: Any, name: str | None = None) -> str:
    digest = hmac.new(pepper, repr(value).encode(), hashlib.sha256).hexdigest()[:16]
    return f"hmac:{name}:{digest}" if name is not None else f"hmac:{digest}"
