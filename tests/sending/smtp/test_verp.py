"""Envelope senders that name their letter, and nobody else's."""

from uuid import uuid4

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from app.core.config import Settings
from app.sending.smtp.verp import Verp

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
RETURN_PATH = "bounces@mail.isp.example"


def a_verp(*keys):
    return Verp(Settings(_env_file=None, secret_keys=",".join(keys or (NEW,))))


@given(st.uuids())
def test_every_message_comes_back_from_its_address(message_id):
    address = a_verp().sender(RETURN_PATH, message_id)

    assert a_verp().read(address) == message_id
    assert address.startswith("bounces+")
    assert address.endswith("@mail.isp.example")


def test_the_longest_return_path_still_fits_a_local_part():
    local = a_verp().sender("a" * 20 + "@mail.isp.example", uuid4()).rpartition("@")[0]

    assert len(local) == 64  # RFC 5321, 4.5.3.1.1


def test_relays_may_change_case_and_brackets():
    message_id = uuid4()
    address = a_verp().sender(RETURN_PATH, message_id)

    assert a_verp().read(f" <{address.upper()}> ") == message_id


def test_an_older_key_reads_what_it_made_as_long_as_it_is_listed():
    message_id = uuid4()
    address = a_verp(OLD).sender(RETURN_PATH, message_id)

    assert a_verp(NEW, OLD).read(address) == message_id
    assert a_verp(NEW).read(address) is None
    assert a_verp(NEW).is_forged(address)


def test_a_forged_address_names_nobody():
    address = a_verp().sender(RETURN_PATH, uuid4())
    local, _, domain = address.partition("@")
    head, _, mac = local.partition(".")
    other = a_verp().sender(RETURN_PATH, uuid4()).partition("@")[0].partition(".")[0]

    for forged in (f"{head}.{'a' * 16}@{domain}", f"{other}.{mac}@{domain}", f"{head}.{mac[::-1]}@{domain}"):
        assert a_verp().read(forged) is None
        assert a_verp().is_forged(forged)


@pytest.mark.parametrize(
    "address", ["", "bounces@mail.isp.example", "bounces+me@isp.example", "postmaster@isp.example", "+.@", "a+b.c@d", "bounces+" + "é" * 26 + ".x@y"]
)
def test_an_ordinary_address_is_neither_ours_nor_forged(address):
    assert a_verp().read(address) is None
    assert not a_verp().is_forged(address)


@given(st.text(max_size=100))
def test_no_text_is_anybodys_proof(text):
    assert a_verp().read(text) is None
    assert a_verp().read(f"bounces+{text}@mail.isp.example") is None
