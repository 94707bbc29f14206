"""The small parts that everything stands on: ids, cursors, preconditions, secrets, logs, metrics."""

import base64
import json
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa
import time_machine
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from app.core import metrics
from app.core.errors import AppError, ConfigurationError, Invalid, MatchRequired, StaleVersion, pointer
from app.core.ids import first_id_at, new_id, parse_id
from app.core.logs import mask_address
from app.core.page import PageQuery, encode_cursor
from app.core.preconditions import etag, require_match
from app.core.secrets import SecretBox
from app.forecasts.models import KINDS


def test_ids_sort_by_the_time_they_were_made():
    made = [new_id() for _ in range(5000)]

    assert made == sorted(made)
    assert len(set(made)) == 5000
    assert {one.version for one in made} == {7}


def test_bound_of_a_moment_stands_between_ids_made_before_and_after_it():
    with time_machine.travel(datetime(2026, 1, 1, tzinfo=UTC), tick=False):
        moment = datetime.now(UTC)
    before, at, after = (first_id_at(moment + timedelta(milliseconds=n)) for n in (-1, 0, 1))

    assert before < at < after
    assert first_id_at(datetime.now(UTC) - timedelta(seconds=1)) < new_id() < first_id_at(datetime.now(UTC) + timedelta(seconds=1))
    assert first_id_at(datetime(1900, 1, 1, tzinfo=UTC)).int >> 80 == 0


@pytest.mark.parametrize(
    "text", ["", "x", "{01a20820-9c2e-71f8-b557-619456229512}", "01a208209c2e71f8b557619456229512", "urn:uuid:01a20820-9c2e-71f8-b557-619456229512"]
)
def test_only_the_canonical_form_is_an_id(text):
    assert parse_id(text) is None
    assert parse_id("01A20820-9C2E-71F8-B557-619456229512") == UUID("01a20820-9c2e-71f8-b557-619456229512")


def cursor_of(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20) | st.integers(), min_size=1, max_size=3))
def test_cursor_gives_back_what_it_was_made_of(values):
    assert PageQuery(50, encode_cursor(*values)).key(*(type(value) for value in values)) == values


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "!",
        "é",
        "AA",
        cursor_of({}),
        cursor_of("x"),
        cursor_of([]),
        cursor_of(["a", "b"]),
        cursor_of([None]),
        cursor_of([1.5]),
        cursor_of([["x"]]),
        cursor_of(["\0"]),
        cursor_of([5]),
        base64.urlsafe_b64encode(b"[" * 300).decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_made_up_cursor_is_refused_as_such(cursor):
    with pytest.raises(AppError) as refused:
        PageQuery(50, cursor).key(UUID)

    assert (refused.value.status, refused.value.errors[0].code) == (422, "bad_cursor")


@given(st.text(max_size=60))
def test_no_text_at_all_makes_a_cursor_fail_otherwise(cursor):
    with suppress(Invalid):
        PageQuery(50, cursor).key(UUID)


async def test_hostile_cursor_is_a_problem_of_every_list(api):
    for path in ("/accounts", "/keys", "/templates", "/messages", "/events", "/gateways", "/notification-types"):
        for cursor in ("!", cursor_of(["\ud800"]), cursor_of(["\ud800", "\ud800"]), cursor_of([5]), cursor_of([10**30, "x"])):
            answer = await api.get(path, params={"cursor": cursor, "account": "1"} if path in {"/messages", "/events"} else {"cursor": cursor})
            assert (path, cursor, answer.status_code < 500) == (path, cursor, True)


def test_update_names_the_version_that_it_has_read():
    require_match(etag(3), 3)
    require_match('"1", W/"3"', 3)
    require_match("*", 3)
    with pytest.raises(MatchRequired):
        require_match(None, 3)
    for stale in ('"2"', "3", "", '"33"'):
        with pytest.raises(StaleVersion):
            require_match(stale, 3)


def test_pointer_escapes_what_rfc_6901_reserves():
    assert pointer("data", "a/b", "c~d", 0) == "/data/a~1b/c~0d/0"


def keys(*listed):
    return SecretStr(", ".join(listed))


def test_secret_made_with_an_older_key_opens_until_the_key_is_dropped():
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    sealed = SecretBox(keys(old)).seal("пароль")

    assert "пароль".encode() not in sealed
    assert SecretBox(keys(new, old)).open(sealed) == "пароль"
    resealed = SecretBox(keys(new, old)).seal("пароль")
    assert SecretBox(keys(new)).open(resealed) == "пароль"
    with pytest.raises(ConfigurationError, match="VESTNIK_SECRET_KEYS"):
        SecretBox(keys(new)).open(sealed)


LOGS = """
import logging, structlog
from app.core.logs import configure_logs
configure_logs("info", "json")
structlog.get_logger().info("sent", address="+79161234567", to="ivan.petrov@example.org", password="hunter2", token="eyJ", detail="550 no such user ivan.petrov@example.org")
logging.getLogger("elsewhere").warning("could not write to %s", "ivan.petrov@example.org")
structlog.get_logger().debug("too much")
"""


def test_address_or_secret_never_stands_in_a_log_line_also_of_a_stranger_library():
    said = subprocess.run([sys.executable, "-c", LOGS], capture_output=True, text=True, check=True).stderr

    for personal in ("9161234", "ivan.petrov", "hunter2", "eyJ"):
        assert personal not in said
    ours, theirs = [json.loads(line) for line in said.splitlines()]
    assert (ours["address"], ours["to"]) == ("+7***4567", "i***@example.org")
    assert ours["detail"].startswith("550 no such user i***@")
    assert (theirs["level"], theirs["logger"]) == ("warning", "elsewhere")
    assert theirs["event"].startswith("could not write to i***@")


def test_link_that_refuses_a_type_is_masked_in_logs():
    from app.core.logs import _mask

    event = _mask(None, "info", {"path": "/unsubscribe/AaIJ_x-9", "said": {"link": "https://isp.example/unsubscribe/AaIJ_x-9?locale=en"}})

    assert event == {"path": "/unsubscribe/***", "said": {"link": "https://isp.example/unsubscribe/***?locale=en"}}


@pytest.mark.parametrize(("address", "masked"), [("+79161234567", "+7***4567"), ("12345", "***"), ("", "***"), ("a@b.ru", "a***@b.ru"), ("@", "***@")])
def test_masked_address_is_enough_to_recognise_and_too_little_to_write_to(address, masked):
    assert mask_address(address) == masked


async def test_error_of_the_database_does_not_carry_the_values_that_it_was_given(database):
    with pytest.raises(DBAPIError) as failed:
        async with database.transaction() as session:
            await session.execute(sa.text("SELECT 1 / CAST(:zero AS int), CAST(:phone AS text)"), {"zero": 0, "phone": "+79161234567"})

    assert "79161234567" not in str(failed.value)


def test_known_series_start_at_zero():
    metrics.start_at_zero(gateways={"test-gateway": "smpp"}, types=["test.type"])

    text = metrics_text()
    assert 'vestnik_events_total{result="accepted",type="test.type"} 0.0' in text
    assert 'vestnik_receipts_total{gateway="test-gateway",result="parked"} 0.0' in text
    assert set(metrics.SCAN_KINDS) == set(KINDS)
    for kind in KINDS:
        assert re.search(rf'vestnik_scan_hits_total{{kind="{kind}"}} ', text), "the first scan of a process would be no increase"
        assert re.search(rf'vestnik_scan_seconds_count{{kind="{kind}"}} ', text)


def metrics_text():
    from prometheus_client import generate_latest

    return generate_latest().decode()


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("10.1.2.3", 200),
        ("::1", 200),
        ("::ffff:192.168.0.5", 200),
        ("8.8.8.8", 403),
        ("::ffff:8.8.8.8", 403),
        ("2001:db8::1", 403),
        ("not-an-address", 403),
    ],
)
async def test_metrics_are_for_loopback_and_private_networks(api, peer, status):
    transport = httpx.ASGITransport(app=api.app, client=(peer, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://vestnik") as client:
        assert (await client.get("/metrics")).status_code == status
        assert (await client.get("/metrics/targets")).status_code == status


async def test_metrics_may_be_narrowed_to_one_address(api):
    api.app.state.settings.__dict__["metrics_networks"] = [ip_network("127.0.0.2/32")]

    transport = httpx.ASGITransport(app=api.app, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://vestnik") as client:
        assert (await client.get("/metrics")).status_code == 403


async def test_metrics_of_requests_know_routes_and_never_numbers(api):
    await api.get("/accounts/98765432100")

    text = metrics_text()
    assert "98765432100" not in text
    assert re.search(r'vestnik_http_requests_total\{method="GET",route="[^"]*accounts/\{number\}",status="4xx"\}', text)
