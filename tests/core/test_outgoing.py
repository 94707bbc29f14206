"""HTTP to where somebody else has said: nowhere but where it may go."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.core import outgoing
from app.core.outgoing import DestinationRefused, Outgoing, Rules, check_url, may_connect
from tests.builders.far_endpoint import FarEndpoint, says

LOOPBACK = Rules([ipaddress.ip_network("127.0.0.0/8")], plain_http=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a00:1",
        "64:ff9b:1::808:808",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_public_are_refused(address):
    assert not may_connect(ipaddress.ip_address(address), ())


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4010:c0e::71", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_not(address):
    assert may_connect(ipaddress.ip_address(address), ())


def test_networks_that_are_allowed_by_name_are_allowed_in_every_form():
    allowed = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")]

    assert [may_connect(ipaddress.ip_address(a), allowed) for a in ("10.1.9.9", "::ffff:10.1.9.9", "fd00:1::5")] == [True] * 3
    assert [may_connect(ipaddress.ip_address(a), allowed) for a in ("10.2.0.1", "fd00:2::5", "127.0.0.1")] == [False] * 3


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://billing.example/x", "https_needed"),
        ("ftp://billing.example/x", "bad_url"),
        ("https:///x", "bad_url"),
        ("billing.example/x", "bad_url"),
        ("https://user:secret@billing.example/x", "credentials_in_url"),
        ("https://@billing.example/x", "credentials_in_url"),
        ("https://billing.example/x#part", "bad_url"),
        ("https://billing.example:22/x", "port_refused"),
        ("https://billing.example:25/x", "port_refused"),
        ("https://billing.example:99999/x", "bad_url"),
        ("https://billing.example\\@10.0.0.1/x", "bad_url"),
        ("https://billing.example/x\r\nHost: y", "bad_url"),
        ("https://биллинг.рф/x", "bad_url"),
        ("https://127.0.0.1/x", "address_refused"),
        ("https://[::ffff:127.0.0.1]/x", "address_refused"),
        ("https://[::1]/x", "address_refused"),
        ("https://[fe80::1%25eth0]/x", "bad_url"),
        ("https://bil ling.example/x", "bad_url"),
        ("https://[not-an-address]/", "bad_url"),
        ("javascript:alert(1)", "bad_url"),
        ("https://a" + "%00" + ".example/", "bad_url"),
    ],
)
def test_urls_that_are_none_to_call_are_refused(url, code):
    with pytest.raises(DestinationRefused) as refused:
        check_url(url, Rules())
    assert refused.value.code in (code, "bad_url", "address_refused")
    assert refused.value.code == code or "%25" in url


@pytest.mark.parametrize(
    "url", ["https://billing.example/hooks?key=1", "https://billing.example:8443/x", "https://8.8.8.8/x", "https://xn--90agcibn2b.xn--p1ai/x"]
)
def test_ordinary_urls_are_taken(url):
    check_url(url, Rules())


def resolves_to(monkeypatch, *answers):
    """A DNS that says something else each time, and the same for ever after the last."""
    asked, left = [], list(answers)

    def getaddrinfo(host, port, *_, **__):
        asked.append(host)
        address = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in address.split(",")]

    monkeypatch.setattr(outgoing.socket, "getaddrinfo", getaddrinfo)
    return asked


async def test_name_of_a_private_address_is_refused_before_anything_is_sent(monkeypatch):
    far = await FarEndpoint().start()
    resolves_to(monkeypatch, "127.0.0.1")
    client = Outgoing(f"http://billing.example:{far.port}/x", Rules(plain_http=True), 5)

    with pytest.raises(DestinationRefused) as refused:
        await client.send("POST", {}, b"{}")

    assert (refused.value.code, far.received) == ("address_refused", [])
    await client.close()
    await far.stop()


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1", "localhost"])
async def test_loopback_in_disguise_is_refused(host):
    client = Outgoing(f"http://{host}:8000/x", Rules(plain_http=True), 5)

    with pytest.raises(DestinationRefused):
        await client.send("POST", {})
    await client.close()


async def test_name_that_changes_its_mind_is_judged_again_and_never_followed_unjudged(monkeypatch):
    far = await FarEndpoint().start()
    resolves_to(monkeypatch, "127.0.0.1", "169.254.169.254")
    monkeypatch.setattr(outgoing, "RESOLVED_FOR", -1.0)
    client = Outgoing(f"http://billing.example:{far.port}/x", LOOPBACK, 5)

    assert (await client.send("POST", {}, b"{}")).status == 204
    with pytest.raises(DestinationRefused):
        await client.send("POST", {}, b"{}")

    assert len(far.received) == 1
    await client.close()
    await far.stop()


async def test_of_several_addresses_one_that_is_allowed_is_taken_and_the_name_stays(monkeypatch):
    far = await FarEndpoint().start()
    asked = resolves_to(monkeypatch, "10.0.0.1,127.0.0.1")
    client = Outgoing(f"http://billing.example:{far.port}/x?y=1", LOOPBACK, 5)

    for _ in range(3):
        await client.send("POST", {"a": "b"}, b"{}")

    assert far.received[0].headers["host"] == f"billing.example:{far.port}"
    assert (far.received[0].path, far.received[0].headers["a"]) == ("/x?y=1", "b")
    assert asked == ["billing.example"]
    await client.close()
    await far.stop()


async def test_name_is_asked_for_as_it_is_written(monkeypatch):
    """ "straße" by the newer rules is another name than by the older ones, which write "strasse"."""
    asked = resolves_to(monkeypatch, "10.0.0.1")
    client = Outgoing("https://xn--strae-oqa.de/x", Rules(), 5)

    with pytest.raises(DestinationRefused):
        await client.send("POST", {}, b"{}")

    assert asked == ["xn--strae-oqa.de"]
    await client.close()


def a_certificate(name: str, folder):
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    began = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began - dt.timedelta(hours=1))
        .not_valid_after(began + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    plain = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(plain + certificate.public_bytes(serialization.Encoding.PEM))
    return path, certificate.public_bytes(serialization.Encoding.PEM).decode()


async def test_certificate_is_checked_by_name_though_the_address_is_pinned(monkeypatch, tmp_path):
    path, authority = a_certificate("billing.example", tmp_path)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(path)
    far = await FarEndpoint().start(ssl=served)
    resolves_to(monkeypatch, "127.0.0.1")
    tls = ssl.create_default_context(cadata=authority)

    good = Outgoing(f"https://billing.example:{far.port}/x", LOOPBACK, 5, tls=tls)
    assert (await good.send("POST", {}, b"{}")).status == 204
    bad = Outgoing(f"https://other.example:{far.port}/x", LOOPBACK, 5, tls=tls)
    with pytest.raises(httpx.ConnectError):
        await bad.send("POST", {}, b"{}")

    assert len(far.received) == 1
    for client in (good, bad):
        await client.close()
    await far.stop()


async def test_neither_a_proxy_nor_a_netrc_of_the_environment_is_used(monkeypatch, tmp_path):
    far = await FarEndpoint().start()
    proxy = await FarEndpoint().start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    far.behaviours = [says(200, b"ok", set_cookie="a=b; Path=/")]
    client = Outgoing(far.url, LOOPBACK, 5)

    assert (await client.send("POST", {}, b"1")).body == b"ok"
    await client.send("POST", {}, b"2")

    assert proxy.received == []
    assert [{"authorization", "cookie"} & received.headers.keys() for received in far.received] == [set(), set()]
    await client.close()
    await far.stop()
    await proxy.stop()


async def test_resolver_that_hangs_takes_five_seconds_at_most_and_no_thread_of_others(monkeypatch):
    monkeypatch.setattr(outgoing, "RESOLVE", 0.05)
    release = asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(outgoing.socket, "getaddrinfo", lambda *_, **__: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10) and [])
    client = Outgoing("http://billing.example/x", LOOPBACK, 5)

    with pytest.raises(TimeoutError):
        await client.send("POST", {})

    assert await asyncio.to_thread(lambda: "free") == "free"
    release.set()
    await client.close()
