"""TLS towards an SMSC: checked, explained, and never given up for plain text."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.simulators.smsc import SmscSimulator

CREDENTIALS = {"system_id": "isp", "password": "p" * 16}


@dataclass
class Authority:
    """Signs certificates into files of one folder."""

    folder: Path
    name: str = "Test CA"

    def __post_init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        named = self._named(self.name)
        # Who may sign, and for what: OpenSSL does not take an authority that does not say so.
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = self._builder(named, self.key, days=30).issuer_name(named)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).add_extension(usage, critical=True)
        self.certificate = builder.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.file = self.folder / f"{self.name}.pem"
        self.file.write_text(self.pem)

    def issue(self, host: str, *, days: int = 30) -> tuple[Path, Path]:
        """Certificate and key for a host name and 127.0.0.1; one of negative days is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = self._builder(self._named(host), key, days=days).issuer_name(self.certificate.subject).add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        paths = self.folder / f"{host}{days}.crt", self.folder / f"{host}{days}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        )
        return paths

    def _named(self, name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        begin, end = now - timedelta(days=60), now + timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


def secured(authority: Authority, host: str = "smsc.example", *, days: int = 30, **options) -> SmscSimulator:
    certificate, key = authority.issue(host, days=days)
    return SmscSimulator(tls_cert=certificate, tls_key=key, **CREDENTIALS, **options)


async def test_c38_a_valid_certificate_is_bound_to_and_the_whole_password_goes_over_it(call, authority):
    async with secured(authority) as smsc:
        caller = await call(smsc, profile={"tls": True, "ca": str(authority.file), "sni": "smsc.example"}, **CREDENTIALS)
        caller.ship(caller.message())
        await caller.settled(1)

        assert caller.kinds == {"Accepted": 1}
        assert smsc.binds[0][1:3] == ("isp", "p" * 16)
        said = caller.bind.far_end["trx"]
        assert said.tls_version in ("TLSv1.2", "TLSv1.3")
        assert said.tls_cipher
        assert said.certificate_subject == "CN=smsc.example"
        assert timedelta(days=29) < said.certificate_until - datetime.now(UTC) < timedelta(days=31)


async def test_the_own_authority_may_stand_in_the_profile_as_text_and_the_host_is_checked_when_no_name_is_given(call, authority):
    async with secured(authority) as smsc:
        caller = await call(smsc, profile={"tls": True, "ca": authority.pem}, **CREDENTIALS)

        assert caller.bind.status.state == "bound"


async def refused(call, smsc, **profile) -> str:
    """What is told about a bind that must not come up."""
    caller = await call(smsc, bound=False, profile={"tls": True} | profile, **CREDENTIALS)
    await caller.until(lambda: caller.bind.status.last_error)
    await caller.until(lambda: caller.states().count("connecting") >= 2)

    assert smsc.binds == []  # not in plain text either
    assert caller.bind.allowance() == 0
    return caller.bind.status.last_error.detail


async def test_c38_a_certificate_of_another_host_is_refused(call, authority):
    async with secured(authority) as smsc:
        detail = await refused(call, smsc, ca=authority.pem, sni="other.example")

        assert detail.startswith("hostname mismatch (")
        assert "other.example" in detail


async def test_c38_an_expired_certificate_is_refused(call, authority):
    async with secured(authority, days=-1) as smsc:
        assert await refused(call, smsc, ca=authority.pem, sni="smsc.example") == "certificate expired"


async def test_c38_a_certificate_of_a_foreign_authority_is_refused(call, authority, tmp_path):
    async with secured(Authority(tmp_path, "Foreign CA")) as smsc:
        detail = await refused(call, smsc, ca=authority.pem, sni="smsc.example")

        assert detail == "the certificate's authority is not trusted: name it in `ca`"


async def test_without_an_authority_of_its_own_the_systems_are_asked(call, authority):
    async with secured(authority) as smsc:
        assert "not trusted" in await refused(call, smsc, sni="smsc.example")


async def test_unverified_means_any_certificate_and_still_tls(call, authority):
    async with secured(authority, days=-1) as smsc:
        caller = await call(smsc, profile={"tls": True, "verify": False, "sni": "other.example"}, **CREDENTIALS)

        assert caller.bind.far_end["trx"].certificate_subject == "CN=smsc.example"


async def test_c38_there_is_no_falling_back_to_plain_text(call):
    async with SmscSimulator(**CREDENTIALS) as smsc:
        assert "TLS" in await refused(call, smsc, connect_timeout=0.3)


async def test_a_client_certificate_is_shown_where_it_is_asked_for(call, authority):
    certificate, key = authority.issue("isp.example")
    async with secured(authority, tls_client_ca=authority.file) as smsc:
        profile = {"tls": True, "ca": authority.pem, "sni": "smsc.example", "client_cert": str(certificate), "client_key": str(key)}
        await call(smsc, profile=profile, **CREDENTIALS)

        assert [status for *_, status in smsc.binds] == [0]


async def test_a_missing_client_certificate_is_named(call, authority):
    async with secured(authority, tls_client_ca=authority.file) as smsc:
        assert "client_cert" in await refused(call, smsc, ca=authority.pem, sni="smsc.example")


@pytest.mark.parametrize(
    ("profile", "detail"),
    [
        ({"ca": "/nowhere/ca.pem"}, "ca: there is no file /nowhere/ca.pem"),
        ({"ca": __file__}, "ca: no PEM that OpenSSL can use"),
        ({"client_cert": "/nowhere/isp.crt"}, "client_cert: there is no file /nowhere/isp.crt"),
    ],
)
async def test_files_that_cannot_be_used_are_named(call, authority, profile, detail):
    async with secured(authority) as smsc:
        assert (await refused(call, smsc, **profile)).startswith(detail)


async def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(call, authority, tmp_path):
    certificate, _ = authority.issue("isp.example")
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"unknown")
    locked.write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    async with secured(authority) as smsc:
        detail = await refused(call, smsc, ca=authority.pem, client_cert=str(certificate), client_key=str(locked))

        assert detail.startswith("client_cert: ")


async def test_a_link_over_tls_lives_through_a_reset_and_stops_in_good_order(call, authority):
    async with secured(authority) as smsc:
        caller = await call(smsc, profile={"tls": True, "ca": authority.pem}, **CREDENTIALS)
        smsc.drop_all()
        await caller.until(lambda: len(smsc.binds) == 2)
        await caller.bound()
        await caller.ship_as_allowed([caller.message() for _ in range(200)])
        await caller.settled(200)
        await caller.bind.stop(2)

        assert caller.kinds == {"Accepted": 200}
        assert smsc.unbinds == 1
