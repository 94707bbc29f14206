"""The books of the soak can tell a right end from a wrong one: a soak that cannot fail proves nothing."""

import json

import pytest

from benchmarks.soak_books import Books

SENT = {"kind": "submit", "bind": 1, "sequence": 2, "to": "79160000001", "part": None, "reference": 7, "taken": True, "status": 0, "id": "FF"}
SILENT = SENT | {"status": None}
REFUSED = SENT | {"taken": False, "status": 11, "id": None}
UNTAKEN = SENT | {"taken": False, "status": None, "id": None}


def told(stat="DELIVRD", status=0, **facts):
    return {"kind": "ack", "status": status, "bind": 1, "id": "255", "to": "79160000001", "stat": stat, "carrier": "both", "echo": True} | facts


def part(number, **facts):
    return SENT | {"part": [9, 2, number], "id": f"{number:X}"} | facts


@pytest.mark.parametrize(
    ("state", "log", "is_right"),
    [
        ("delivered", [SENT, told()], True),
        ("delivered", [SENT, told("UNDELIV"), told()], True),
        ("delivered", [SENT], False),
        ("delivered", [SENT, told(status=0x64)], False),
        ("delivered", [SENT, told("UNDELIV")], False),
        ("accepted", [SENT], True),
        ("accepted", [SENT, told("ENROUTE")], True),
        ("accepted", [SENT, told()], False),
        ("accepted", [SENT, told(carrier="garbage")], True),
        ("accepted", [REFUSED], False),
        ("accepted", [SILENT], False),
        ("undelivered", [SENT, told("UNDELIV")], True),
        ("undelivered", [SENT, told("EXPIRED")], False),
        ("expired", [SENT, told("EXPIRED")], True),
        ("failed", [REFUSED], True),
        ("failed", [SENT], False),
        ("failed", [UNTAKEN], False),
        ("unknown", [UNTAKEN], True),
        ("unknown", [], True),
        ("unknown", [SILENT, told()], False),
        ("unknown", [SILENT, told(echo=False)], True),
        ("delivered", [REFUSED, SENT, told()], True),
        ("delivered", [SENT, SENT | {"id": "FE"}, told()], False),
        ("unknown", [UNTAKEN, UNTAKEN], False),
        ("delivered", [UNTAKEN, SENT, told()], False),
        ("delivered", [part(1), part(2), told(id="1"), told(id="2")], True),
        ("delivered", [part(1), part(2), told(id="1"), told(id="1")], False),
        ("undelivered", [part(1), part(2), told(id="1"), told("UNDELIV", id="2")], True),
        ("accepted", [part(1), part(2), told(id="1")], True),
        ("failed", [part(1), part(2, taken=False, status=11, id=None)], True),
        ("failed", [part(1, taken=False, status=11, id=None), part(2, taken=False, status=None, id=None)], True),
        ("failed", [part(1), part(2, taken=False, status=None, id=None)], False),
        ("queued", [SENT], False),
    ],
)
def test_a_state_is_right_only_when_the_far_ends_log_allows_it(tmp_path, state, log, is_right):
    path = tmp_path / "one.log"
    path.write_text("".join(json.dumps(line) + "\n" for line in log))
    books = Books()
    books.read(path)

    figures = books.close([{"address": "+79160000001", "state": state}])

    assert (figures["wrong"] == {}) == is_right
    assert figures["states"] == {state: 1}


def test_a_submit_that_no_message_explains_is_wrong(tmp_path):
    path = tmp_path / "two.log"
    path.write_text(json.dumps(SENT | {"id": "ab-cd"}) + "\n")
    books = Books()
    books.read(path)

    assert list(books.close([])["wrong"]) == ["submitted, but no message of ours"]
