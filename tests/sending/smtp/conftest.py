"""A letter to send, a mailbox to send it to, and a pool between them that tells what became of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.gateways.smtp import SmtpSettings
from app.sending.outcome import Outcome
from app.sending.smtp.mime import Letter
from app.sending.smtp.pool import Pool, PoolStatus
from app.simulators.mailbox import Mailbox

numbers = count(1)


class Sending:
    """A running pool, and everything that it has told."""

    def __init__(self, settings: SmtpSettings) -> None:
        self.outcomes: list[tuple[Letter, Outcome]] = []
        self.states: list[PoolStatus] = []
        self.pool = Pool(settings, on_outcome=self._on_outcome, on_change=self.states.append)
        self.running: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def _on_outcome(self, letter: Letter, outcome: Outcome) -> None:
        self.outcomes.append((letter, outcome))
        self._news.set()

    async def ship(self, *letters: Letter) -> list[Outcome]:
        """Ships the letters and waits for the outcome of each, in the order in which they were shipped."""
        await self.until(lambda: self.pool.allowance() > 0)
        for letter in letters:
            self.pool.ship(letter)
        outcomes = await self.outcomes_of(*letters)
        self.pool.release(len(letters))
        return outcomes

    async def outcomes_of(self, *letters: Letter) -> list[Outcome]:
        keys = {letter.key for letter in letters}
        async with asyncio.timeout(10):
            while len(keys & {letter.key for letter, _ in self.outcomes}) < len(keys):
                self._news.clear()
                await self._news.wait()
        found = {letter.key: outcome for letter, outcome in self.outcomes}
        return [found[letter.key] for letter in letters]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)


def write_letter(to: str = "subscriber@example.org", **changes: Any) -> Letter:
    number = next(numbers)
    given = {
        "key": uuid4(),
        "to": to,
        "sender": "Мой Провайдер <noreply@isp.example>",
        "subject": f"Платёж получен, № {number}",
        "text": "Спасибо!\n.\n..и точка\nБаланс: 612,30 ₽\n",
        "html": None,
        "message_id": f"<{number}@isp.example>",
        "date": datetime(2026, 11, 23, 10, 0, tzinfo=UTC),
    }
    return Letter(**{**given, **changes})


@pytest.fixture(scope="session")
def letter() -> Callable[..., Letter]:
    return write_letter


@asynccontextmanager
async def opened(mailbox: Mailbox, **changes: Any) -> AsyncIterator[Sending]:
    """A pool that sends to the mailbox. Changes to the profile are merged into one that does not make a test wait."""
    profile = {"reconnect_min": 0.05, "reconnect_max": 0.2, "connect_timeout": 3, "timeout": 3, "data_timeout": 3, **changes.pop("profile", {})}
    given = {"kind": "smtp", "host": "127.0.0.1", "port": mailbox.port, "tls": "none", "from": "MyISP <noreply@isp.example>", "profile": profile}
    sending = Sending(SmtpSettings.model_validate({**given, **changes}))
    sending.running = asyncio.create_task(sending.pool.run())
    try:
        yield sending
    finally:
        await sending.pool.stop(1)
        await asyncio.wait([sending.running])


@pytest.fixture
async def sending_to() -> AsyncIterator[Callable[..., Any]]:
    """`sending = await sending_to(mailbox, connections=1, profile={...})`."""
    async with AsyncExitStack() as stack:

        async def start(mailbox: Mailbox, **changes: Any) -> Sending:
            return await stack.enter_async_context(opened(mailbox, **changes))

        yield start


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    async with Mailbox() as mailbox:
        yield mailbox


class Certificate:
    """A self-signed certificate for localhost and 127.0.0.1; `ca_file` makes a client trust it."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        self.ca_file = str(directory / "ca.pem")
        key_file = directory / "key.pem"
        Path(self.ca_file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.load_cert_chain(self.ca_file, key_file)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))
