"""Signatures, checked by dkimpy with a name server of our own."""

import base64
import sys
import types

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from app.gateways.dkim import SIGNED, Dkim
from app.gateways.smtp import SmtpSettings
from app.sending.outcome import Accepted
from app.sending.smtp.dkim import QUICK_OCTETS, Signer
from app.sending.smtp.mime import build

PLAIN = serialization.NoEncryption()
RSA, EDWARDS = rsa.generate_private_key(65537, 2048), Ed25519PrivateKey.generate()


def pem(key, form=serialization.PrivateFormat.PKCS8, lock=PLAIN):
    return key.private_bytes(serialization.Encoding.PEM, form, lock).decode()


def in_dns(key):
    """What stands at s2026._domainkey.isp.example."""
    public = key.public_key()
    if isinstance(key, Ed25519PrivateKey):
        kind, octets = "ed25519", public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    else:
        kind, octets = "rsa", public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k={kind}; p={base64.b64encode(octets).decode()}".encode()


class VerifyKey:
    """The part of PyNaCl that dkimpy asks for Ed25519."""

    def __init__(self, octets, encoder):
        self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(octets))

    def verify(self, told, signature):
        try:
            self._key.verify(signature, told)
        except InvalidSignature:
            raise sys.modules["nacl.exceptions"].BadSignatureError from None


@pytest.fixture(autouse=True)
def nacl(monkeypatch):
    exceptions = types.SimpleNamespace(BadSignatureError=type("BadSignatureError", (Exception,), {}), ValueError=type("ValueError", (Exception,), {}))
    shim = types.SimpleNamespace(signing=types.SimpleNamespace(VerifyKey=VerifyKey), encoding=types.SimpleNamespace(Base64Encoder=None), exceptions=exceptions)
    monkeypatch.setitem(sys.modules, "nacl.exceptions", exceptions)
    monkeypatch.setattr(dkim, "nacl", shim, raising=False)


def is_genuine(data, key):
    asked = []

    def answer(name, timeout=5):
        asked.append(name)
        return in_dns(key) if name == b"s2026._domainkey.isp.example." else None

    genuine = dkim.verify(data, dnsfunc=answer)
    assert asked == [b"s2026._domainkey.isp.example."]
    return genuine


def an_option(key=RSA, **changes):
    return Dkim.model_validate({"domain": "isp.example", "selector": "s2026", "private_key": pem(key) if not isinstance(key, str) else key} | changes)


@pytest.fixture(params=[RSA, EDWARDS], ids=["rsa", "ed25519"])
def key(request):
    return request.param


LETTERS = {
    "plain": {},
    "html": {"html": "<p>Платёж <b>получен</b></p>"},
    "long subject": {"subject": "Платёж получен, спасибо. " * 12},
    "no body": {"text": ""},
    "empty lines at its end": {"text": "Hello\n\n\n\n"},
    "spaces": {"text": "  two  spaces \n\ttab \n ", "subject": "two  spaces"},
    "with a refusal": {"headers": {"List-Unsubscribe": "<https://isp.example/u/x>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}},
}


@pytest.mark.parametrize("given", LETTERS.values(), ids=LETTERS.keys())
async def test_a_receiver_finds_every_letter_genuine(key, letter, given):
    message = build(letter(**given))

    signed = await Signer(an_option(key)).sign(message)

    assert is_genuine(signed.data, key)
    assert signed.data.endswith(message.data)
    assert max(map(len, signed.data[: -len(message.data)].split(b"\r\n"))) <= 78  # RFC 5322, 2.1.1


async def test_a_letter_that_somebody_changed_is_not_genuine(key, letter):
    signed = (await Signer(an_option(key)).sign(build(letter(text="Pay 10.00\n")))).data

    assert is_genuine(signed, key)
    for before, after in ((b"10.00", b"99.00"), (b"subscriber@", b"somebody@"), (b"Message-ID: <", b"Message-ID: <9")):
        assert before in signed
        assert not is_genuine(signed.replace(before, after), key)


@pytest.mark.parametrize("header", [b"From: bank@bank.example", b"Reply-To: thief@example.net", b"Subject: Pay", b"List-Unsubscribe: <https://thief.example>"])
async def test_nobody_can_add_a_header_that_is_signed(key, letter, header):
    signed = (await Signer(an_option(key)).sign(build(letter()))).data

    assert not is_genuine(header + b"\r\n" + signed, key)
    assert is_genuine(b"Received: from a by b\r\n" + signed, key)


async def test_the_one_click_link_is_under_the_signature(letter):
    signed = (await Signer(an_option()).sign(build(letter(**LETTERS["with a refusal"])))).data

    assert not is_genuine(signed.replace(b"isp.example/u/x", b"thief.example/u"), RSA)  # RFC 8058, 4


async def test_a_large_letter_is_signed_as_well(letter):
    message = build(letter(text="Hello\n" * QUICK_OCTETS))

    assert is_genuine((await Signer(an_option()).sign(message)).data, RSA)


async def test_only_the_headers_that_were_chosen_are_signed(letter):
    signed = (await Signer(an_option(headers=["From", "Subject"])).sign(build(letter()))).data

    assert b" h=from:from:subject:subject;" in signed
    assert is_genuine(signed.replace(b"subscriber@", b"somebody@"), RSA)


@pytest.mark.parametrize(
    "written",
    [
        pem(RSA),
        pem(RSA, serialization.PrivateFormat.TraditionalOpenSSL),
        f"\n {pem(EDWARDS)} ",
        base64.b64encode(EDWARDS.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, PLAIN)).decode(),
    ],
    ids=["pkcs8", "pkcs1", "ed25519 between blanks", "the bare seed"],
)
def test_a_key_is_taken_in_the_forms_that_tools_write(written):
    assert an_option(written).private_key.get_secret_value()


@pytest.mark.parametrize(
    "change",
    [
        {"private_key": "secret"},
        {"private_key": "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"},
        {"private_key": pem(RSA, lock=serialization.BestAvailableEncryption(b"x"))},
        {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))},
        {"private_key": pem(rsa.generate_private_key(65537, 1024)).replace("PRIVATE", "PUBLIC")},
        {"domain": "isp"},
        {"domain": "isp.example\r\nBcc: x"},
        {"domain": "isp.example; d=bank.example"},
        {"selector": "s 1"},
        {"selector": ""},
        {"headers": ["subject"]},
        {"headers": ["from", "From"]},
        {"headers": ["from", "x:y"]},
        {"headers": ["from", "received"]},
        {"headers": []},
        {"identity": "x"},
    ],
)
def test_an_option_that_could_not_work_is_refused_without_showing_the_key(change):
    with pytest.raises(ValidationError) as refused:
        an_option(**change)

    assert "MII" not in str(refused.value.errors(include_input=False, include_context=False))


def test_the_key_is_in_no_representation():
    option = an_option()

    assert "MII" not in repr(option) + str(option.model_dump()) + option.model_dump_json()
    assert option.headers == list(SIGNED)


async def test_a_gateway_with_the_option_sends_signed_letters(mailbox, sending_to, letter):
    sending = await sending_to(mailbox, dkim={"domain": "isp.example", "selector": "s2026", "private_key": pem(EDWARDS)})

    (outcome,) = await sending.ship(letter(text=".leading dot\n..\n"))

    assert isinstance(outcome, Accepted)
    assert is_genuine(mailbox.letters[-1].raw, EDWARDS)


def test_a_gateway_without_the_option_signs_nothing():
    assert SmtpSettings.model_validate({"kind": "smtp", "host": "mail.isp.example", "from": "a@isp.example"}).dkim is None
