"""PostgreSQL: one engine a process, short transactions, column kinds that every table shares."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, TypeVar

import asyncpg
import sqlalchemy as sa
from fastapi import Depends, Request
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlmodel import Field, SQLModel

from app.core.config import Settings

T = TypeVar("T")
E = TypeVar("E", AsyncSession, AsyncConnection)

# Names that do not depend on the dialect, so that a migration can speak of a constraint.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

MONEY = sa.Numeric(14, 2)
MOMENT = sa.DateTime(timezone=True)

# Serialization failure and deadlock: PostgreSQL's own advice is to run the transaction again (40001, 40P01).
AGAIN = ("40001", "40P01")
# Connection lost, out of resources, shut down by an operator, disk trouble: nobody's data is at fault.
AWAY = ("08", "53", "57", "58")


def is_away(error: BaseException) -> bool:
    """Whether it is the database that cannot work just now, and not what it was given: trying again later may help, and trying less will not."""
    if isinstance(error, InterfaceError | PoolTimeoutError | OSError | TimeoutError):
        return True
    return isinstance(error, DBAPIError) and (error.connection_invalidated or str(getattr(error.orig, "sqlstate", None) or "")[:2] in AWAY)


def is_conflict(error: BaseException) -> bool:
    """Whether somebody else was in the way (deadlock, serialization): the same transaction may well succeed now."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in AGAIN


def is_datas_fault(error: BaseException) -> bool:
    """Whether what was written is to blame and would be refused again: data exceptions, constraints, limits, or a mistake of ours that it brought to light.
    A table that is missing or locked away (42, 42501, ...) is nobody's data's fault."""
    state = str(getattr(error.orig, "sqlstate", None) or "") if isinstance(error, DBAPIError) else ""
    return not state or state[:2] in ("22", "23", "54")


def moment(**more: Any) -> Any:
    """An aware instant (timestamptz)."""
    return Field(sa_type=MOMENT, **more)


def long_text(**more: Any) -> Any:
    """A text without a bound of its own."""
    return Field(sa_type=sa.Text, **more)


def json_field(**more: Any) -> Any:
    """None is NULL: JSON's own `null` is no value of ours."""
    return Field(sa_type=JSONB(none_as_null=True), **more)


def one_of(name: str, *values: str) -> sa.CheckConstraint:
    """CHECK that a text column has one of these values: stored by value, changed by an ordinary migration."""
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{name} IN ({listed})", name=name)


# Whatever runs a Core statement: a session in its transaction, or a connection on which each statement commits.
Executor = AsyncSession | AsyncConnection


class Database:
    """The engine and its sessions. `async with db.transaction() as session:` commits at the end, rolls back on an error.

    `patience`: seconds for a statement; none where one may take hours. `secret_keys` (the newest first) open the pepper of the hashes that the audit keeps instead of personal values."""

    def __init__(
        self, url: str, *, pooler: str = "none", pool_size: int = 10, name: str = "vestnik", secret_keys: str = "", patience: float | None = 120
    ) -> None:
        connect: dict[str, Any] = {"timeout": 10, "command_timeout": patience}
        if pooler == "transaction":
            # pgbouncer in transaction mode hands the next statement to another server: nothing prepared may be kept.
            connect |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
        else:
            # A plan made on an empty table would be kept for ever; making one costs little beside a batch.
            connect["server_settings"] = {"application_name": name, "jit": "off", "plan_cache_mode": "force_custom_plan"}
        self.engine: AsyncEngine = create_async_engine(
            url, hide_parameters=True, pool_size=pool_size, max_overflow=pool_size, pool_timeout=30, pool_recycle=1800, pool_use_lifo=True, connect_args=connect
        )
        # The same pool: each statement is a transaction of its own, without the two round trips of BEGIN and COMMIT.
        self._atomic = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False, autoflush=False, info={"secret_keys": secret_keys, "kept": {}})

    @asynccontextmanager
    async def transaction(self, *, isolation: str | None = None) -> AsyncIterator[AsyncSession]:
        """`isolation` is the one of the house (READ COMMITTED) unless it is named: REPEATABLE READ sees one moment throughout."""
        async with self._sessions() as session, session.begin():
            if isolation is not None:
                await session.connection(execution_options={"isolation_level": isolation})
            yield session

    @asynccontextmanager
    async def atomic(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which every statement commits by itself: for steps that are one statement, and busy."""
        async with self._atomic.connect() as connection:
            yield connection

    async def again(self, work: Callable[[AsyncSession], Awaitable[T]], *, isolation: str | None = None) -> T:
        """Run the work in a transaction of its own, once more when PostgreSQL asks for that (deadlock, serialization)."""
        return await _again(lambda: self.transaction(isolation=isolation), work)

    async def again_atomic(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """The same where each statement of the work commits by itself, and running it again is harmless."""
        return await _again(self.atomic, work)

    @classmethod
    def of(cls, settings: Settings, name: str = "vestnik", pool_size: int = 10) -> "Database":
        """The database of these settings."""
        keys = settings.secret_keys.get_secret_value()
        return cls(settings.database_url, pooler=settings.database_pooler, name=name, pool_size=pool_size, secret_keys=keys)

    async def close(self) -> None:
        await self.engine.dispose()


async def _again(opened: Callable[[], AbstractAsyncContextManager[E]], work: Callable[[E], Awaitable[T]], tries: int = 5) -> T:
    for left in range(tries - 1, -1, -1):
        try:
            async with opened() as executor:
                return await work(executor)
        except DBAPIError as error:
            if left == 0 or getattr(error.orig, "sqlstate", None) not in AGAIN:
                raise
    raise AssertionError


async def get_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One transaction a request. Scope `function`: a failing commit is a 500, not a 201 that lies.

    A route that made work for a queue names it in `request.state.after_commit`; it is woken when the work is there to be seen."""
    async with request.app.state.database.transaction() as session:
        yield session
    if queues := getattr(request.state, "after_commit", None):
        request.app.state.wakeups.wake(*queues)


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


def sync_dsn(url: str) -> dict[str, Any]:
    """Arguments of asyncpg.connect for one of our URLs (sockets included)."""
    parsed = sa.make_url(url)
    query = dict(parsed.query)
    host = parsed.host or query.get("host")
    return {
        "host": host,
        "port": parsed.port or int(str(query.get("port", 5432))),
        "user": parsed.username,
        "password": parsed.password,
        "database": parsed.database,
        "ssl": query.get("ssl"),
    }


def as_utc(value: datetime | None) -> str | None:
    """RFC 3339 with an offset, as every answer says a time."""
    return value.isoformat().replace("+00:00", "Z") if value else None


def column_of(values: Sequence[Any]) -> list[Any]:
    """A column for `unnest`, which makes up for missing elements with nulls: one of nothing but nulls need not be sent at all."""
    return [] if values[0] is None and values.count(None) == len(values) else list(values)


class BulkInsert:
    """INSERT of many rows in one statement: a column is an array, `unnest` makes them rows again (15 times faster than VALUES of 500 rows).

    `BulkInsert("receipt", id="uuid", raw="bytea").run(session, [(id, raw), ...])`; jsonb columns take JSON texts. `computed` columns are expressions over the
    given ones, which are called `<table>_<column>` there."""

    def __init__(self, table: str, *, conflict: str = "", returning: str = "", computed: Mapping[str, str] | None = None, **columns: str) -> None:
        self._names = [f"{table}_{column}" for column in columns]
        arrays = ", ".join(f"CAST(:{name} AS {'text' if kind == 'jsonb' else kind}[])" for name, kind in zip(self._names, columns.values(), strict=True))
        values = ", ".join(f"CAST({name} AS jsonb)" if kind == "jsonb" else name for name, kind in zip(self._names, columns.values(), strict=True))
        into, chosen = (", ".join((first, *more)) for first, more in ((", ".join(columns), computed or ()), (values, (computed or {}).values())))
        self.sql = f"INSERT INTO {table} ({into}) SELECT {chosen} FROM unnest({arrays}) AS given({', '.join(self._names)}) {conflict} {returning}"
        self._statement = sa.text(self.sql)

    def arrays(self, rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
        """The rows as the statement's parameters."""
        return dict(zip(self._names, map(column_of, zip(*rows, strict=True)), strict=True)) if rows else {name: [] for name in self._names}

    async def run(self, session: Executor, rows: Sequence[Sequence[Any]]) -> sa.Result[Any] | None:
        if not rows:
            return None
        return await session.execute(self._statement, self.arrays(rows))


class TogetherInsert:
    """Several BulkInserts as one statement: one round trip. Their parameters must have different prefixes."""

    def __init__(self, *inserts: BulkInsert) -> None:
        self._inserts = inserts
        steps = ", ".join(f"i{number} AS ({insert.sql})" for number, insert in enumerate(inserts))
        self._statement = sa.text(f"WITH {steps} SELECT 1")

    async def run(self, session: Executor, *rows: Sequence[Sequence[Any]]) -> None:
        if any(rows):
            values: dict[str, Any] = {}
            for insert, given in zip(self._inserts, rows, strict=True):
                values |= insert.arrays(given)
            await session.execute(self._statement, values)


# What COPY's text format gives a meaning to (PostgreSQL, COPY, File Formats).
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
NULL = "\\N"


def copy_text(text: str) -> str:
    """A text as a cell of COPY's text format."""
    return text if "\\" not in text and text.isprintable() else text.translate(_ESCAPES)


async def copy_rows(session: AsyncSession, table: str, columns: Sequence[str], rows: AsyncIterable[bytes]) -> None:
    """COPY into a table, in the session's transaction, which something has been executed in. `rows` are pieces of COPY's text format.

    Half the work of an INSERT for the server, and a fifth of it for us; but one row that conflicts fails all of them."""
    raw = await (await session.connection()).get_raw_connection()
    assert raw.driver_connection is not None
    try:
        await raw.driver_connection.copy_to_table(table, source=rows, columns=columns)
    except asyncpg.IntegrityConstraintViolationError as error:
        raise IntegrityError(f"COPY {table}", None, error) from error
    except asyncpg.PostgresError as error:
        raise DBAPIError(f"COPY {table}", None, error) from error  # as every other statement fails: whoever tries again looks for this
    except asyncpg.InterfaceError as error:
        raise InterfaceError(f"COPY {table}", None, error) from error
