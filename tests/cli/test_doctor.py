"""`vestnik doctor` on an installation that is well, and on one with each fault really made."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from string import Formatter
from uuid import UUID

import asyncpg
import pytest
import time_machine
from cryptography.fernet import Fernet
from pydantic import SecretStr

from app import cli
from app.core.clock import now
from app.core.config import Settings
from app.core.db import Database, sync_dsn
from app.core.ids import first_id_at, new_id
from app.core.secrets import SecretBox
from app.desk import doctor_database
from app.desk.doctor import examine
from app.desk.findings import advice
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import find_executable
from app.schema import prepare
from app.simulators.smsc import SmscSimulator
from tests.builders.accounts import an_account
from tests.builders.events import a_waiting_event
from tests.builders.gateways import an_smpp_gateway, an_smtp_gateway
from tests.builders.messages import HOUR, a_message, run
from tests.builders.types import set_type
from tests.conftest import at, run_sql

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "an-unmistakable-password"


@pytest.fixture
def vestnik(monkeypatch, capsys, settings, tmp_path):
    """Runs the command line in a thread of its own, on the database of the test: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    for name in ("database_url", "redis_url", "data_dir"):
        monkeypatch.setenv(f"VESTNIK_{name.upper()}", str(getattr(settings, name)))

    async def run_it(*words):
        def command() -> int:
            monkeypatch.setattr(sys, "argv", ["vestnik", *words])
            with pytest.raises(SystemExit) as end:
                cli.main()
            return int(end.value.code or 0)

        code = await asyncio.to_thread(command)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_it


@pytest.fixture
def a_redis(tmp_path):
    """A Redis with settings of the test's own; its URL."""
    started = []

    def start(*options: str) -> str:
        place = tmp_path / "r.sock"
        command = [str(find_executable()), "--port", "0", "--unixsocket", str(place), "--dir", str(tmp_path), "--save", "", *options]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        while not place.exists():
            assert started[-1].poll() is None
        return f"unix://{place}"

    yield start
    for process in started:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def found(settings: Settings, **changes) -> dict[str, dict[str, object]]:
    """Findings by code; a code that was found twice has the values of the last."""
    return {finding.code: dict(finding.values) for finding in await examine(settings.model_copy(update=changes))}


async def a_process(database, queues: str) -> None:
    await run(
        database,
        "INSERT INTO worker_process (id, queues, host, started_at, seen_at) VALUES (:id, :queues, 'here', now(), now())",
        id=new_id(),
        queues=queues,
    )


@pytest.fixture
async def durable(tmp_path_factory):
    """The URL of a server as `vestnik up` runs it: the tests' own is not durable, and the doctor says so."""
    home = tmp_path_factory.mktemp("durable")
    home.chmod(0o755)
    server = EmbeddedPostgres(home)
    url = await asyncio.to_thread(server.start)
    await prepare(url)
    yield url
    await asyncio.to_thread(server.stop)


async def test_installation_that_is_well_passes(durable, settings, vestnik, monkeypatch):
    monkeypatch.setenv("VESTNIK_DATABASE_URL", durable)
    database = Database(durable)
    async with SmscSimulator() as smsc:
        await an_smpp_gateway(database, port=smsc.port, bound=True)
        await an_smtp_gateway(database, port=smsc.port)
        await a_process(database, "all")

        code, said, _ = await vestnik("doctor", "--lang", "en")
    await database.close()

    assert re.findall("FAIL.*", said) == []
    assert code == 0
    assert {"settings_ok", "database_ok", "schema_ok", "redis_ok", "gateways_ok", "words_ok", "processes_ok", "queues_ok"} <= set(
        re.findall(r"\[(\w+)\]", said)
    )


async def test_finding_says_what_to_do_in_the_language_of_the_installation(database, vestnik):
    code, said, _ = await vestnik("doctor")
    _, english, _ = await vestnik("doctor", "--lang", "en")

    assert code == 1
    assert "FAIL  Очередь plan никто не обслуживает [queue_without_worker]\n      сделать: Запустите `vestnik worker --queue plan`" in said
    assert "FAIL  Nobody serves the queue plan [queue_without_worker]\n      do: Start `vestnik worker --queue plan`" in english


async def test_program_reads_the_same_as_json(database, vestnik):
    code, said, _ = await vestnik("doctor", "--json", "--lang", "en")

    told = json.loads(said)
    assert code == 1
    assert told["summary"]["fail"] == sum(finding["level"] == "fail" for finding in told["findings"]) > 0
    assert all(finding["means"] and (finding["level"] == "ok" or finding["do"]) for finding in told["findings"])


async def test_language_that_is_not_there_is_bad_usage(vestnik):
    code, _, why = await vestnik("doctor", "--lang", "de")

    assert code == 2
    assert "there is ru and en" in why


async def test_wrong_setting_is_a_finding(vestnik, monkeypatch):
    monkeypatch.setenv("VESTNIK_TIMEZONE", "Moscow")

    code, said, _ = await vestnik("doctor", "--lang", "en")

    assert code == 1
    assert "VESTNIK_TIMEZONE" in said
    assert "[settings_invalid]" in said


async def test_settings_that_a_start_would_take_are_judged(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("VESTNIK_SECRET_KEYS=x\n")
    Path(".env").chmod(0o644)
    keys = ",".join(Fernet.generate_key().decode() for _ in range(3))

    codes = await found(
        settings,
        secret_keys=SecretStr(keys),
        jwt_hs256_secret=SecretStr("12" * 20),
        public_url="https://10.0.0.7",
        cors_origins="https://cabinet.isp.example/, *",
        metrics_allow="0.0.0.0/0",
        retention_days_content=500,
    )

    assert {"secret_keys_many", "jwt_secret_weak", "public_url_inside", "cors_no_origin", "cors_everybody", "metrics_open"} <= codes.keys()
    assert {"retention_reversed", "file_is_open", "env_local"} <= codes.keys()
    assert "public_url_not_https" in await found(settings, public_url="http://notify.isp.example")
    assert "secret_keys_local" in await found(settings)


async def test_no_password_of_anything_is_ever_said(database, settings, vestnik, monkeypatch):
    strange = SecretBox(SecretStr(Fernet.generate_key().decode())).seal(PASSWORD)
    await an_smpp_gateway(database, password="")
    await run(database, "UPDATE gateway SET secret = :secret", secret=strange)
    monkeypatch.setenv("VESTNIK_DATABASE_URL", f"postgresql+asyncpg://vestnik:{PASSWORD}@127.0.0.1:{free_port()}/vestnik")
    monkeypatch.setenv("VESTNIK_REDIS_URL", f"redis://:{PASSWORD}@127.0.0.1:{free_port()}")
    monkeypatch.setenv("VESTNIK_JWT_HS256_SECRET", PASSWORD)

    code, said, why = await vestnik("doctor", "--json")

    assert code == 1
    assert PASSWORD not in said + why
    assert {"database_unreachable", "redis_unreachable", "jwt_secret_weak"} <= {finding["code"] for finding in json.loads(said)["findings"]}


async def test_database_that_is_down_does_not_keep_redis_from_being_looked_at(settings):
    codes = await found(settings, database_url=f"postgresql+asyncpg://vestnik@127.0.0.1:{free_port()}/vestnik")

    assert "database_unreachable" in codes
    assert "redis_ok" in codes
    assert "look_failed" not in codes


async def test_redis_that_is_down_does_not_keep_the_database_from_being_looked_at(database, settings):
    codes = await found(settings, redis_url=f"redis://127.0.0.1:{free_port()}")

    assert "redis_unreachable" in codes
    assert {"database_ok", "schema_ok", "words_ok"} <= codes.keys()


async def test_nothing_configured_is_said(settings):
    codes = await found(settings, database_url="", redis_url="")

    assert {"database_not_configured", "redis_not_configured"} <= codes.keys()


async def test_redis_that_throws_keys_away_and_forgets(database, settings, a_redis):
    url = a_redis("--maxmemory-policy", "allkeys-lru", "--maxmemory", "1100000", "--appendonly", "no")

    codes = await found(settings, redis_url=url)

    assert codes["redis_evicts"] == {"policy": "allkeys-lru"}
    assert "redis_forgets" in codes


@pytest.mark.parametrize(("revision", "code"), [("0001", "schema_old"), ("9999", "schema_newer")])
async def test_schema_of_another_version(database, settings, revision, code):
    await run(database, "UPDATE alembic_version SET version_num = :revision", revision=revision)

    codes = await found(settings)

    assert codes[code]["found"] == revision
    assert ("words_ok" in codes) == (code == "schema_newer")


async def test_database_without_tables_and_in_another_encoding(servers, settings):
    name = f"bare{new_id().hex}"
    await run_sql(servers[0], f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'")
    try:
        codes = await found(settings, database_url=at(servers[0], name))
    finally:
        await run_sql(servers[0], f"DROP DATABASE {name} WITH (FORCE)")

    assert {"schema_missing", "database_encoding"} <= codes.keys()


async def test_server_that_is_not_durable_is_named(database, settings):
    """The tests' own server is set so."""
    codes = await found(settings)

    assert "fsync" in str(codes["not_durable"]["settings"])


async def test_more_processes_than_connections(database, settings):
    for number in range(12):
        await a_process(database, f"smpp:main:{number}")

    codes = await found(settings)

    assert codes["connections_short"]["needed"] == 13 * 20


async def test_transaction_that_was_forgotten_and_an_index_that_was_not_finished(database, settings, monkeypatch):
    monkeypatch.setattr(doctor_database, "LONG", timedelta(0))
    forgotten = await asyncpg.connect(**sync_dsn(settings.database_url))
    try:
        await forgotten.execute("CREATE TABLE twice AS SELECT 1 AS n FROM generate_series(1, 2)")
        with pytest.raises(asyncpg.UniqueViolationError):
            await forgotten.execute("CREATE UNIQUE INDEX CONCURRENTLY ix_twice ON twice (n)")
        await forgotten.execute("BEGIN")
        await forgotten.execute("SELECT 1")

        pid, findings = forgotten.get_server_pid(), await examine(settings)
    finally:
        await forgotten.close()

    assert {finding.values["name"] for finding in findings if finding.code == "index_half_made"} == {"ix_twice"}
    assert pid in {finding.values["pid"] for finding in findings if finding.code == "long_transaction"}


async def test_stop_that_stands_is_remembered(database, settings):
    await run(database, "INSERT INTO stop (id, scope, name, reason, by, at) VALUES (:id, 'type', 'x', 'fire', 'me', now())", id=new_id())

    assert (await found(settings))["stop_stands"] == {"scope": "type", "name": "x", "reason": "fire"}


@pytest.mark.parametrize(("ahead", "code"), [(timedelta(seconds=10), "clock_off"), (timedelta(minutes=10), "clock_far_off")])
async def test_clock_of_this_machine_goes_wrong(database, settings, ahead, code):
    with time_machine.travel(datetime.now(UTC) + ahead, tick=True):
        findings = await examine(settings)

    assert {finding.area for finding in findings if finding.code == code} == {"database", "redis"}


async def test_gateway_whose_password_cannot_be_read(database, settings):
    await an_smpp_gateway(database)
    await run(database, "UPDATE gateway SET secret = :secret", secret=SecretBox(SecretStr(Fernet.generate_key().decode())).seal(PASSWORD))

    codes = await found(settings)

    assert codes["gateway_secret_unreadable"] == {"gateway": "main"}


async def test_gateway_whose_settings_cannot_be_read(database, settings):
    await an_smpp_gateway(database)
    await run(database, """UPDATE gateway SET settings = settings || '{"window": -1}'""")

    codes = await found(settings)

    assert codes["gateway_settings_invalid"] == {"gateway": "main", "keys": "window"}


async def test_gateway_that_nobody_can_reach(database, settings):
    port = free_port()
    await an_smpp_gateway(database, port=port)
    await an_smpp_gateway(database, "other", host="no-such-host.invalid")

    codes = await found(settings)

    assert codes["host_refuses"]["host"] == f"127.0.0.1:{port}"
    assert codes["host_unknown"]["gateway"] == "other"
    assert codes["bind_without_owner"]["slot"] == 0
    assert codes["channel_without_gateway"] == {"channel": "email"}


async def test_bind_that_its_smsc_refuses_and_a_gateway_that_is_paused(database, settings):
    await an_smpp_gateway(database, bound=True, paused=True)
    status = json.dumps({"state": "down", "last_error": {"where": "bind", "name": "ESME_RINVPASWD", "command_status": "0x0000000E"}})
    await run(database, "UPDATE bind_slot SET status = CAST(:status AS jsonb)", status=status)

    codes = await found(settings)

    assert codes["bind_down"]["error"] == "bind ESME_RINVPASWD 0x0000000E"
    assert "gateway_paused" in codes


async def test_routes_that_lead_nowhere(database, settings):
    await an_smpp_gateway(database)
    routes = [{"name": "north", "gateways": ["gone"], "type": ["no.such"]}, {"gateways": [{"name": "main"}, {"name": "gone"}]}, {"gateways": ["main"]}]
    await run(
        database,
        "INSERT INTO routing (id, routes, revision, updated_at) VALUES (1, CAST(:routes AS jsonb), 1, now())"
        " ON CONFLICT (id) DO UPDATE SET routes = excluded.routes",
        routes=json.dumps(routes),
    )

    codes = await found(settings)

    assert codes["route_to_nowhere"] == {"route": "north", "gateways": "gone"}
    assert codes["route_in_part"] == {"route": "#2", "gateways": "gone"}
    assert codes["route_type_unknown"]["types"] == "no.such"


async def test_words_that_are_missing(database, settings):
    await an_account(database, locale="kk")
    await set_type(database, "tariff.changed", channels=[])
    await run(database, "UPDATE template SET published_version = NULL WHERE type = 'service.connected' AND channel = 'sms'")

    codes = await found(settings)

    assert codes["template_missing"] == {"type": "service.connected", "channel": "sms"}
    assert codes["type_without_channels"] == {"type": "tariff.changed"}
    assert codes["language_missing"]["locale"] == "kk"
    assert codes["language_missing"]["accounts"] == 1
    assert "payment.received (sms)" in str(codes["language_missing"]["types"])


async def test_event_that_nobody_plans(database, settings):
    account = await an_account(database)
    await a_waiting_event(database, account)
    assert "planning_lags" not in await found(settings)

    await run(database, "UPDATE event_waiting SET event_id = :old", old=first_id_at(now() - timedelta(minutes=5)))
    assert (await found(settings))["planning_lags"] == {"events": 1}

    await run(database, "UPDATE event_waiting SET event_id = :old", old=first_id_at(now() - timedelta(minutes=50)))
    assert (await found(settings))["planning_stands"] == {"events": 1}


async def test_message_that_nobody_sends_and_a_lease_that_nobody_ends(database, settings):
    await a_message(database, not_before=now() - HOUR, expires_at=now() + HOUR)
    await a_message(database, state="sending", lease_until=now() - HOUR, not_before=now() - HOUR)

    codes = await found(settings)

    assert codes["sending_stands"]["messages"] == 1
    assert codes["leases_stand"] == {"messages": 1}


async def test_scan_that_was_missed_failed_or_waits(database, settings):
    await an_account(database)
    for kind, state in (("threshold", "failed"), ("upcoming", "needs_confirmation")):
        await run(
            database,
            "INSERT INTO scan_run (id, kind, origin, zone, as_of, dry_run, state, phase, requested_by, found, sample, created_at)"
            " VALUES (:id, :kind, 'clock', 'Europe/Moscow', CURRENT_DATE, false, :state, 'count', 'clock', '{}', '[]', now())",
            id=new_id(),
            kind=kind,
            state=state,
        )

    codes = await found(settings)

    assert codes["scan_missed"]["last"] == "-"
    assert codes["scan_failed"]["kind"] == "threshold"
    assert codes["scan_waits"]["kind"] == "upcoming"


async def test_partitions_that_come_to_their_end(database, settings):
    async def until(name: str, end: datetime) -> None:
        await run(database, f"CREATE TABLE {name} (id uuid NOT NULL) PARTITION BY RANGE (id)")
        await run(database, f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM ('{UUID(int=0)}') TO ('{first_id_at(end)}')")

    await until("few", now() + timedelta(days=10))
    await until("out", now() + timedelta(days=1))
    await until("well", now() + timedelta(days=90))

    codes = await found(settings)

    assert codes["partitions_few"]["table"] == "few"
    assert codes["partitions_end"]["table"] == "out"


async def test_webhooks_that_nobody_takes(database, settings):
    for path, enabled, because in (("a?token=unmistakable", True, None), ("b", False, "gone")):
        await run(
            database,
            "INSERT INTO webhook (id, url, title, types, with_text, with_tests, enabled, disabled_because, secret, revision, failures, failing_since, last_error,"
            " created_at, updated_at) VALUES (:id, :url, '', '{}', false, false, :enabled, :because, '', 1, 3, now() - interval '20 minutes', 'HTTP 500', now(), now())",
            id=new_id(),
            url=f"https://billing.isp.example/{path}",
            enabled=enabled,
            because=because,
        )

    codes = await found(settings)

    assert codes["webhook_fails"] == {"webhook": "billing.isp.example", "error": "HTTP 500", "minutes": 20}
    assert codes["webhook_off"]["because"] == "gone"


async def test_bounces_are_to_be_taken_and_nobody_takes_them(database, settings):
    await a_process(database, "plan,mail,cron,scan,reports,webhooks,simulated")

    assert "queue_without_worker" not in await found(settings)
    assert (await found(settings, bounce_listen="127.0.0.1:2526"))["queue_without_worker"] == {"queue": "bounces"}


def test_every_finding_of_the_code_has_words_and_all_words_are_said():
    code = "".join(path.read_text("utf-8") for path in [*(ROOT / "app/desk").glob("doctor*.py"), ROOT / "app/commands/doctor.py"])
    said = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', code))

    assert advice().keys() <= said
    made = set(re.findall(r'Finding\([^,]+, "(\w+)"', code))
    assert len(made) > 30
    assert made <= advice().keys()


def test_words_of_a_finding_agree_in_both_languages():
    for name, words in advice().items():
        assert (words.level == "ok") == (words.do is None), name
        for both in filter(None, (words.means, words.do)):
            assert fields(both.ru) == fields(both.en), name
            assert re.search("[а-яё]", both.en, re.IGNORECASE) is None, name


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name}


def test_doctor_ends_well_where_there_is_no_terminal_and_no_settings_at_all(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from app.cli import main; main()", "doctor", "--lang", "en"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "[database_not_configured]" in done.stdout
    assert "Traceback" not in done.stderr
