"""The cases of SMPP conformance: a simulated SMSC that plays a scenario, a bind or the whole station against it, and what came of it.

Cases are numbered C01 to C38 (some numbers are not used); V cases are holes that were found beside them.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy.exc import DBAPIError

from app.core.secrets import SecretBox
from app.core.wakeups import Wakeups
from app.sending import bind_station, mail_station
from app.sending.bind_station import BindStation
from app.simulators.smsc import Scenario, SmscSimulator
from app.tracking.match import record
from app.tracking.sweeps import Sweeper
from tests.builders.gateways import QUICK, an_smpp_gateway
from tests.builders.messages import a_message, rows
from tests.sending.smpp.conftest import call  # noqa: F401 - a fixture

FINISHED = {"delivered", "undelivered", "expired", "failed", "unknown", "cancelled"}


@pytest.fixture
async def play() -> AsyncIterator[Callable]:
    """`await play({"on": "submit", ...}, ..., window=3)`: an SMSC with these rules and options."""
    async with AsyncExitStack() as stack:

        async def start(*rules, ids=None, **options) -> SmscSimulator:
            return await stack.enter_async_context(SmscSimulator(scenario=Scenario.of(*rules, ids=ids or {}), **options))

        yield start


class Works:
    """The stations of one gateway `main` on a real database."""

    def __init__(self, database, settings) -> None:
        self.database, self.settings = database, settings
        self.running: list[tuple[BindStation, asyncio.Task]] = []
        self.sweeper = Sweeper(database, Wakeups(settings.redis_url, direct=lambda _: True))

    async def open(self, *smscs: SmscSimulator, binds: int = 1, profile: dict | None = None, name: str = "main", **settings) -> None:
        (smsc,) = smscs
        await an_smpp_gateway(self.database, name, port=smsc.port, binds=binds, profile=QUICK | (profile or {}), **settings)
        self.work(name, binds)

    def work(self, name: str = "main", binds: int = 1) -> None:
        for slot in range(binds):
            station = BindStation(self.database, SecretBox(self.settings.secret_keys), name, slot, record)
            self.running.append((station, asyncio.create_task(station.run())))

    async def sweep(self) -> None:
        """What the cron worker does each second, more often."""
        while True:
            await asyncio.sleep(0.2)
            with contextlib.suppress(DBAPIError):  # a test may have taken a table away
                await self.sweeper.match_parked()
                await self.sweeper.end_leases()

    async def close(self) -> None:
        for station, _ in self.running:
            station.stop()
        await asyncio.wait_for(asyncio.gather(*(task for _, task in self.running)), 30)
        self.running.clear()

    async def tell(self, count: int, *, first: int = 0, **fields) -> list:
        """So many messages to different numbers; their ids."""
        return [await a_message(self.database, address=f"+7916{first + number:07d}", **fields) for number in range(count)]

    async def states(self) -> Counter:
        found = await rows(
            self.database, "SELECT coalesce(o.state, m.state) AS state, count(*) AS n FROM message m LEFT JOIN outbox o ON o.message_id = m.id GROUP BY 1"
        )
        return Counter({row.state: row.n for row in found})

    async def until(self, *, seconds: float = 15, **states: int) -> None:
        """Until the messages are so many in each state, and no others."""
        seen = Counter()
        try:
            async with asyncio.timeout(seconds):
                while (seen := await self.states()) != Counter(states):
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"{dict(seen)} after {seconds} s, and not {states}") from None

    async def finished(self, *, seconds: float = 20) -> Counter:
        """Until nothing is on its way any more."""
        seen = Counter()
        try:
            async with asyncio.timeout(seconds):
                while not set(seen := await self.states()) <= FINISHED or not seen:
                    await asyncio.sleep(0.03)
        except TimeoutError:
            raise AssertionError(f"{dict(seen)} after {seconds} s") from None
        return seen

    async def bind_is(self, state: str, slot: int = 0, *, seconds: float = 10) -> dict:
        """Wait until the slot's bind says so of itself; its whole status."""
        async with asyncio.timeout(seconds):
            while True:
                found = await rows(self.database, "SELECT status FROM bind_slot WHERE gateway = 'main' AND slot = :slot", slot=slot)
                if found and found[0].status.get("state") == state:
                    return found[0].status
                await asyncio.sleep(0.03)

    async def by_number(self) -> dict[str, str]:
        """State by address."""
        found = await rows(self.database, "SELECT m.address, coalesce(o.state, m.state) AS state FROM message m LEFT JOIN outbox o ON o.message_id = m.id")
        return {row.address: row.state for row in found}

    async def receipts(self) -> Counter:
        return Counter({row.status: row.n for row in await rows(self.database, "SELECT status, count(*) AS n FROM receipt GROUP BY 1")})


@pytest.fixture
async def works(database, settings, monkeypatch) -> AsyncIterator[Works]:
    for module in (bind_station, mail_station):
        monkeypatch.setattr(module, "WATCH", 0.1)
        monkeypatch.setattr(module, "GRACE", 3.0)
    works = Works(database, settings)
    sweeping = asyncio.create_task(works.sweep())
    yield works
    sweeping.cancel()
    await asyncio.wait({sweeping})
    await works.close()


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


class Authority:
    """A certification authority of one test, and the certificates that it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        self.path = folder / "ca.pem"
        made = self._builder(self.name, self.key, 0).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.path.write_bytes(made.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def certificate(self, host: str, *, days: int = 30) -> Path:
        """A chain and its key in one file; `days` below zero: it ended so long ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]), key, days)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        path = self.folder / f"{host}{days}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM) + private)
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        begins = datetime.now(UTC) - timedelta(days=60)
        ends = datetime.now(UTC) + timedelta(days=days or 60)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(begins).not_valid_after(ends)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)
