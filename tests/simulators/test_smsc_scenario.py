"""Every behaviour that a scenario file can ask for, seen from the other end of the socket."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from app.simulators import smsc_wire as wire
from app.simulators.smsc import Mobile, Scenario, SmscSimulator
from app.simulators.smsc_ids import FORMS, Ids
from app.simulators.smsc_scenario import Carrier, Form, OnBind, OnEnquire, OnReceipt, OnSubmit, OnTime, When
from tests.simulators.test_smsc import connect

ROOT = Path(__file__).resolve().parents[2]
RESP = wire.SUBMIT_SM | wire.RESPONSE
ENQUIRE_RESP = wire.ENQUIRE_LINK | wire.RESPONSE


def playing(*rules, ids=None, seed=1, **options):
    return SmscSimulator(scenario=Scenario.of(*rules, ids=ids or {}, seed=seed), **({"receipts": False} | options))


async def answers_to(esme, count, **submit):
    for sequence in range(2, 2 + count):
        await esme.submit(sequence, to=f"7916000{sequence:04d}", **submit)
    return [await esme.read() for _ in range(count)]


@pytest.mark.parametrize(
    ("when", "refused"),
    [
        ({"nth": 2}, [3]),
        ({"nth": [1, 4]}, [2, 5]),
        ({"every": 2}, [3, 5, 7]),
        ({"first": 2}, [2, 3]),
        ({"to_ends": "5"}, [5]),
        ({"to": "79160000004"}, [4]),
        ({"to": "7917"}, []),
        ({"bind": 2}, []),
        ({"bind": 1, "nth": 6}, [7]),
        ({"contains": "hi", "nth": 1}, [2]),
        ({"contains": "ho"}, []),
        ({"after": 60}, []),
        ({"before": 60, "nth": 3}, [4]),
        ({"part": 1}, []),
        ({"probability": 0.0}, []),
        ({"probability": 1.0}, [2, 3, 4, 5, 6, 7]),
    ],
)
async def test_a_rule_concerns_what_its_when_says(when, refused):
    async with playing({"on": "submit", "when": when, "status": 8}) as smsc, connect(smsc.port) as esme:
        answers = await answers_to(esme, 6)

    assert [sequence for _, status, sequence, _ in answers if status == 8] == refused


async def test_the_first_rule_that_fits_decides():
    rules = {"on": "submit", "when": {"nth": 1}, "status": 1}, {"on": "submit", "status": 2}
    async with playing(*rules) as smsc, connect(smsc.port) as esme:
        assert [answer[1] for answer in await answers_to(esme, 3)] == [1, 2, 2]


async def test_the_same_seed_gives_the_same_behaviour():
    seen = []
    for _ in range(2):
        async with playing({"on": "submit", "when": {"probability": 0.3}, "status": 8}, seed=5) as smsc, connect(smsc.port) as esme:
            seen.append([answer[1] for answer in await answers_to(esme, 20)])

    assert seen[0] == seen[1]
    assert 0 < seen[0].count(8) < 20


@pytest.mark.parametrize(("body", "expected"), [("header", b""), ("nul", b"\0"), ("tlv", b"\0\x00\x1d"), ("garbage", b"\xff\x00\x1e")])
async def test_a_refusal_has_the_body_that_is_asked_for(body, expected):
    async with playing({"on": "submit", "status": 0x0412, "body": body}) as smsc, connect(smsc.port) as esme:
        ((command, status, _, octets),) = await answers_to(esme, 1)

    assert (command, status) == (RESP, 0x0412)
    assert octets.startswith(expected)
    assert bool(octets) == bool(expected)


async def test_answers_come_as_nacks_late_twice_in_reverse_or_never():
    rules = [
        {"on": "submit", "when": {"to_ends": "2"}, "nack": "ours", "status": 0x58},
        {"on": "submit", "when": {"to_ends": "3"}, "nack": "zero"},
        {"on": "submit", "when": {"to_ends": "4"}, "copies": 2},
        {"on": "submit", "when": {"to_ends": "5"}, "silent": True},
        {"on": "submit", "when": {"to_ends": "6"}, "delay": 0.1},
        {"on": "submit", "reorder": 2},
    ]
    async with playing(*rules) as smsc, connect(smsc.port) as esme:
        for sequence in range(2, 9):
            await esme.submit(sequence, to=f"7916000000{sequence}")
        answers = [(await esme.read())[:3] for _ in range(7)]

        assert answers == [
            (wire.GENERIC_NACK, 0x58, 2),
            (wire.GENERIC_NACK, 0x03, 0),
            (RESP, 0, 4),
            (RESP, 0, 4),
            (RESP, 0, 8),
            (RESP, 0, 7),
            (RESP, 0, 6),
        ]
        assert [submit.identity is None for submit in smsc.submits] == [True, True, False, True, False, False, False]


async def test_answers_that_are_collected_do_not_wait_for_ever():
    async with playing({"on": "submit", "reorder": 100}) as smsc, connect(smsc.port) as esme:
        assert [answer[2] for answer in await answers_to(esme, 3)] == [4, 3, 2]


async def test_a_throttled_account_is_refused_for_as_long_as_the_rule_says():
    async with playing({"on": "submit", "when": {"nth": 1}, "throttle_for": 0.15}) as smsc, connect(smsc.port) as esme:
        refused = [answer[1] for answer in await answers_to(esme, 3)]
        await asyncio.sleep(0.2)
        await esme.submit(9)

        assert refused == [0x58] * 3
        assert (await esme.read())[1] == 0


async def test_a_bind_is_refused_answered_late_or_closed_again():
    rules = [
        {"on": "bind", "when": {"nth": 1}, "status": 0x0D},
        {"on": "bind", "when": {"nth": 2}, "status": 0x05, "body": "tlv", "delay": 0.1},
        {"on": "bind", "when": {"nth": 3}, "link": "close", "link_after": 0.05},
        {"on": "bind", "silent": True},
    ]
    async with playing(*rules) as smsc:
        async with connect(smsc.port, expected=0x0D), connect(smsc.port, expected=0x05):
            pass
        async with connect(smsc.port) as esme:
            assert await esme.reader.read() == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", smsc.port)
        writer.write(wire.frame(9, 0, 1, b"isp\0secret\0\0\x34\x00\x00\0"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readexactly(1)
        writer.close()


async def test_a_link_is_reset_and_what_was_taken_gets_its_receipt_over_the_next_one():
    rule = {"on": "submit", "when": {"nth": 1}, "link": "reset", "taken": True}
    async with playing(rule, receipts=True) as smsc:
        async with connect(smsc.port) as esme:
            await esme.submit(2)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await esme.read()
        async with connect(smsc.port) as esme:
            assert (await esme.read())[0] == wire.DELIVER_SM
        assert (smsc.accepted, smsc.submits[0].status) == (1, None)


async def test_a_frozen_link_neither_answers_nor_closes():
    async with playing({"on": "submit", "link": "freeze"}) as smsc, connect(smsc.port) as esme:
        await esme.submit(2)
        await esme.send(wire.ENQUIRE_LINK, 3)
        with pytest.raises(TimeoutError):
            await esme.read(timeout=0.2)
        assert not esme.reader.at_eof()


async def test_an_unbinding_smsc_answers_after_the_unbind_resp_and_closes():
    rules = {"on": "submit", "when": {"nth": 1}, "link": "unbind"}, {"on": "submit", "when": {"nth": 2}, "status": 8}
    async with playing(*rules) as smsc, connect(smsc.port) as esme:
        await esme.submit(2)
        await esme.submit(3)
        first = await esme.read(), await esme.read()
        await esme.send(wire.UNBIND | wire.RESPONSE, first[1][2])
        second = await esme.read()

        assert [first[0][:3], first[1][0], second[:3]] == [(RESP, 0, 2), wire.UNBIND, (RESP, 8, 3)]
        assert await esme.reader.read() == b""


async def test_octets_of_every_kind_are_written():
    rules = [
        {"on": "submit", "when": {"nth": 1}, "send": "00000010800000150000000000000007"},
        {"on": "submit", "when": {"nth": 2}, "command": 0x111},
        {"on": "submit", "length": 0xFFFFFFFF},
    ]
    async with playing(*rules) as smsc, connect(smsc.port) as esme:
        for sequence in range(2, 5):
            await esme.submit(sequence)
        read = [(await esme.read())[:2] for _ in range(5)]
        assert {*read} == {(ENQUIRE_RESP, 0), (0x111, 0), (RESP, 0)}
        assert int.from_bytes(await esme.reader.readexactly(4), "big") == 0xFFFFFFFF


async def test_enquire_link_is_left_unanswered_and_asked_in_floods():
    rules = {"on": "enquire", "when": {"nth": 1}}, {"on": "time", "at": 0.2, "enquire": 50}
    async with playing(*rules) as smsc, connect(smsc.port) as esme:
        await esme.send(wire.ENQUIRE_LINK, 2)
        await esme.send(wire.ENQUIRE_LINK, 3)
        asked = [await esme.read() for _ in range(51)]

        assert asked[0][:3] == (ENQUIRE_RESP, 0, 3)
        assert {pdu[0] for pdu in asked[1:]} == {wire.ENQUIRE_LINK}
        assert smsc.enquired == 2


async def receipts_of(rule, count=1, submits=1, **options):
    """Bodies of the receipts for a submit, and what else was read on the way."""
    async with playing({"on": "receipt", **rule}, receipts=True, **options) as smsc, connect(smsc.port) as esme:
        for sequence in range(2, 2 + submits):
            await esme.submit(sequence, tail=wire.tlv(0x0204, b"\x12\x34"))
        pdus = [await esme.read() for _ in range(submits + count)]
        return smsc, pdus, [pdu[3] for pdu in pdus if pdu[0] != RESP]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("standard", b"stat:DELIVRD err:000"),
        ("err_hex", b"err:A1F"),
        ("err_empty", b"err: text:"),
        ("err_four", b"err:0000"),
        ("zeros", b"done date:000000000000"),
        ("submitdate", b"submitdate:"),
        ("short", b"id:1 submit date:"),
        ("lower", b"stat:delivrd"),
        ("upper", b"STAT:DELIVRD ERR:000"),
        ("full_word", b"stat:DELIVERED"),
        ("labels_in_text", b"text:id:1 stat:UNDELIV"),
        ("free", b"thank you"),
    ],
)
async def test_a_receipt_is_written_in_the_form_that_is_asked_for(form, expected):
    _, _, (body,) = await receipts_of({"form": form})

    assert expected in body


@pytest.mark.parametrize("form", ["seconds", "fourteen"])
async def test_dates_of_a_receipt_have_the_length_that_is_asked_for(form):
    _, _, (body,) = await receipts_of({"form": form})

    digits = body.partition(b"done date:")[2].partition(b" ")[0]
    assert len(digits) == {"seconds": 12, "fourteen": 14}[form]


@pytest.mark.parametrize(
    ("carrier", "has", "lacks"),
    [
        ("both", [b"id:1 ", b"\x00\x1e"], []),
        ("text", [b"id:1 "], [b"\x00\x1e"]),
        ("tlv", [b"\x00\x1e\x00\x021\x00", b"\x04\x27\x00\x01\x02"], [b"stat:"]),
        ("payload", [b"\x04\x24", b"stat:DELIVRD"], []),
        ("data_sm", [b"\x04\x24", b"stat:DELIVRD"], []),
        ("ucs2", ["stat:DELIVRD".encode("utf-16-be")], [b"stat:"]),
        ("empty", [b""], [b"stat"]),
        ("garbage", [b""], [b"stat"]),
    ],
)
async def test_a_receipt_is_carried_as_is_asked_for(carrier, has, lacks):
    _, pdus, (body,) = await receipts_of({"carrier": carrier})

    assert [piece in body for piece in has] == [True] * len(has)
    assert [piece in body for piece in lacks] == [False] * len(lacks)
    assert (wire.DATA_SM in [pdu[0] for pdu in pdus]) == (carrier == "data_sm")


async def test_receipts_come_early_several_times_in_any_order_or_not_at_all():
    _, early, _ = await receipts_of({"lead": 0.1})
    _, _, states = await receipts_of({"states": ["ENROUTE", "ACCEPTD", "DELIVRD"], "gap": 0.01}, 3)
    _, _, copies = await receipts_of({"copies": 3}, 3)
    lost, _, none = await receipts_of({"lost": True}, 0)

    assert [pdu[0] for pdu in early] == [wire.DELIVER_SM, RESP]
    assert [state.partition(b"stat:")[2].partition(b" ")[0] for state in states] == [b"ENROUTE", b"ACCEPTD", b"DELIVRD"]
    assert [b"\x20" in states[0], len(copies), len(set(copies)), none] == [True, 3, 1, []]
    assert lost.log.of("no_receipt")


async def test_receipts_of_a_burst_wait_for_each_other():
    async with playing({"on": "receipt", "burst": 5}, receipts=True) as smsc, connect(smsc.port) as esme:
        kinds = []
        for sequence in range(2, 7):
            await esme.submit(sequence)
            kinds.append((await esme.read())[0])
        kinds += [(await esme.read())[0] for _ in range(5)]

        assert kinds == [RESP] * 5 + [wire.DELIVER_SM] * 5


async def test_a_receipt_goes_over_another_bind_of_the_account_where_there_is_one():
    async with playing({"on": "receipt", "elsewhere": True}, receipts=True) as smsc, connect(smsc.port) as one, connect(smsc.port) as other:
        for sequence in (2, 3):
            await one.submit(sequence)
            await other.submit(sequence)
        at_one, at_other = [await one.read() for _ in range(4)], [await other.read() for _ in range(4)]

    def ids(pdus, command, start, end):
        return {pdu[3].partition(start)[2].partition(end)[0] if start else pdu[3][:-1] for pdu in pdus if pdu[0] == command}

    assert ids(at_one, RESP, b"", b"\0") == ids(at_other, wire.DELIVER_SM, b"id:", b" ")
    assert ids(at_other, RESP, b"", b"\0") == ids(at_one, wire.DELIVER_SM, b"id:", b" ")


@pytest.mark.parametrize(
    ("ids", "answer", "receipt"),
    [
        ({"answer": "hex", "receipt": "dec", "first": 171}, b"AB\0", b"id:171 "),
        ({"answer": "hex_lower", "receipt": "hex_zeros", "first": 171}, b"ab\0", b"id:000000AB "),
        ({"answer": "dec", "receipt": "zeros", "first": 7}, b"7\0", b"id:0000000007 "),
    ],
)
async def test_ids_are_written_otherwise_in_the_receipt(ids, answer, receipt):
    _, pdus, (body,) = await receipts_of({}, ids=ids)

    assert pdus[0][3] == answer
    assert receipt in body


async def test_ids_of_36_characters_begin_again_or_are_shared_by_all_parts():
    _, pdus, (body,) = await receipts_of({}, ids={"answer": "uuid", "receipt": "uuid_plain"})
    identity = pdus[0][3][:-1]
    assert identity.replace(b"-", b"") in body
    assert len(identity) == 36

    async with playing(ids={"wrap": 2}) as smsc, connect(smsc.port) as esme:
        assert [answer[3] for answer in await answers_to(esme, 4)] == [b"1\0", b"2\0", b"1\0", b"2\0"]

    async with playing(ids={"one_for_all_parts": True}) as smsc, connect(smsc.port) as esme:
        for sequence in (2, 3, 4, 5):
            await esme.submit(sequence, text=bytes((5, 0, 3, 7, 2, 1 + sequence % 2)) + b"part", esm_class=0x40)
        assert [(await esme.read())[3] for _ in range(4)] == [b"1\0", b"1\0", b"2\0", b"2\0"]


async def test_an_outage_takes_no_connection_and_ends():
    async with playing({"on": "time", "at": 0.1, "outage": 0.3}) as smsc:
        async with connect(smsc.port) as esme:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await esme.read()
            port = smsc._server.sockets[0].getsockname()[1] if smsc._server.sockets else None
        assert port is None
        await asyncio.sleep(0.4)
        async with connect(smsc.port):
            assert len(smsc.links) == 1


@pytest.mark.parametrize("joining", ["udh8", "udh16", "sar", "payload"])
@pytest.mark.parametrize("text", ["СТОП", "Да " * 100, "hello [€] " * 30, "x" * 160, "я" * 66 + "😀" * 5])
async def test_a_subscribers_message_is_cut_so_that_it_can_be_put_together(joining, text):
    mobile = Mobile(source="79161234567", text=text, joining=joining, reverse=True)
    async with SmscSimulator() as smsc, connect(smsc.port) as esme:
        smsc.deliver_mobile(mobile)
        pieces = {}
        while True:
            try:
                _, _, sequence, body = await esme.read(timeout=0.1)
            except TimeoutError:
                break
            # The fields of deliver_sm stand as those of submit_sm do.
            read = wire.read_submit(sequence, body)
            pieces[read.joint[2] if read.joint else 1] = read
            assert len(read.short_message) <= (160 if read.encoding == "GSM7" else 140)

    assert "".join(piece.text for _, piece in sorted(pieces.items())) == text
    assert len({piece.joint and piece.joint[:2] for piece in pieces.values()}) == 1


async def test_the_log_has_a_line_for_every_submit_receipt_and_acknowledgement(tmp_path):
    async with SmscSimulator(log_path=tmp_path / "smsc.log") as smsc, connect(smsc.port) as esme:
        await esme.submit(2, tail=wire.tlv(0x0204, b"\x12\x34"))
        await esme.read()
        command, _, sequence, _ = await esme.read()
        await esme.send(command | wire.RESPONSE, sequence, b"\0")
        await asyncio.sleep(0.05)

        kept = [line["kind"] for line in smsc.log.lines]
        (submit,) = smsc.log.of("submit")
    assert kept == ["bind", "submit", "receipt", "ack"]
    assert {key: submit[key] for key in ("bind", "to", "reference", "taken", "status", "id")} == {
        "bind": 1, "to": "79160000001", "reference": 0x1234, "taken": True, "status": 0, "id": "1",
    }  # fmt: skip
    assert len((tmp_path / "smsc.log").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[rule]]\non = "submit"\nstatuss = 8', "statuss"),
        ('[[rule]]\non = "lunch"', "rule.0"),
        ("[[rule]]\non = ", "smsc.toml"),
        ('[[rule]]\non = "time"\nwhen = {nth = 1}', "a rule on time says"),
        ('ids = {answer = "roman"}', "ids.answer"),
        ('[[rule]]\non = "submit"\ndelay = [1, 2, 3]', "delay"),
    ],
)
def test_a_scenario_that_cannot_be_read_is_refused_with_its_place(tmp_path, text, sentence):
    path = tmp_path / "smsc.toml"
    path.write_text(text)

    with pytest.raises(ValueError) as refused:
        Scenario.read(path)

    assert str(path) in str(refused.value)
    assert sentence in str(refused.value)


async def test_as_a_process_it_plays_a_file_and_writes_its_log(tmp_path):
    (tmp_path / "smsc.toml").write_text('[[rule]]\non = "submit"\nwhen = {nth = 1}\nstatus = 0x0B\nbody = "tlv"\n')
    words = ["smsc-simulator", "--port", "0", "--quiet", "--scenario", str(tmp_path / "smsc.toml"), "--log", str(tmp_path / "smsc.log")]
    process = subprocess.Popen([sys.executable, "-m", "app.cli", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        port = json.loads(await asyncio.to_thread(process.stdout.readline))["port"]
        async with connect(port) as esme:
            answers = await answers_to(esme, 2)
    finally:
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0

    assert [answer[1] for answer in answers] == [0x0B, 0]
    lines = [json.loads(line) for line in (tmp_path / "smsc.log").read_text().splitlines()]
    assert [(line["status"], line["taken"]) for line in lines if line["kind"] == "submit"] == [(0x0B, False), (0, True)]


def test_as_a_process_it_refuses_a_file_that_it_cannot_read(tmp_path):
    (tmp_path / "smsc.toml").write_text('[[rule]]\non = "submit"\nstatuss = 1\n')
    words = ["smsc-simulator", "--scenario", str(tmp_path / "smsc.toml")]
    ended = subprocess.run([sys.executable, "-m", "app.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode != 0
    assert "statuss" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_page_of_the_simulator_has_every_key_and_every_word():
    page = (ROOT / "docs" / "simulator.md").read_text("utf-8")
    said = set(re.findall(r"`(\w+)[` ]", page))

    for shape in (When, OnBind, OnSubmit, OnReceipt, OnEnquire, OnTime, Ids, Mobile, Scenario):
        assert set(shape.model_fields) - {"on", "when", "seed", "ids", "rule"} - said == set(), shape
    assert {*get_args(Form), *get_args(Carrier), *FORMS} - said == set()


def test_the_scenarios_of_the_page_and_of_the_soak_can_be_read():
    examples = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "simulator.md").read_text("utf-8"), re.DOTALL)
    files = sorted((ROOT / "benchmarks").glob("soak_*.toml"))

    assert [bool(Scenario.model_validate(tomllib.loads(example)).rule) for example in examples] == [True]
    assert [bool(Scenario.read(path).rule) for path in files] == [True, True]
