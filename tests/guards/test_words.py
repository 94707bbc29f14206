"""Whatever is decided, and whatever becomes of a message, can be said in Russian and English."""

import re
from pathlib import Path

import pytest

from app.desk.steps import pieces, steps
from app.forecasts.models import KINDS, ScanRun
from app.notifications.states import State
from app.notifications.words import reasons, states
from app.sending.smtp.replies import REASONS, REASONS_BY_CODE
from app.web.pages import wording

ROOT = Path(__file__).resolve().parents[2]
# Where a reason is written down as a literal: an outcome of a wire, a decision, the end of a message, a state in SQL, and names for these.
SAID = (
    r'(?:Refused|Deferred|Unknown|Skipped)\((?:[^()"]|\([^()]*\))*?"([a-z_]+)"',
    r'State\.(?:CANCELLED|EXPIRED|HELD|QUEUED)(?:\.value)?, "([a-z_]+)"',
    r"\breason = '([a-z_]+)'",
    r"""return "([a-z_]+)"(?:$|,| if)""",
)
FILES = {
    "app/notifications": SAID,
    "app/accounts/preferences.py": (r'\(\w+\.[\w.()"]+, "([a-z_]+)"\)', r'return "([a-z_]+)"'),
    "app/sending": SAID[:3],
    "app/tracking": SAID[:3],
    "app/desk/erasure.py": SAID[2:3],
    "app/desk/after_restore.py": (r'^REASON = "([a-z_]+)"',),
}
# Literals that the patterns find and that are no reasons.
OTHERS = {"delivered", "queue", "main", "all", "first", "chain"}


def literals(where: str, patterns: tuple[str, ...]) -> set[str]:
    path = ROOT / where
    texts = [file.read_text("utf-8") for file in (path.rglob("*.py") if path.is_dir() else [path])]
    return {found for text in texts for pattern in patterns for found in re.findall(pattern, text, re.MULTILINE)}


@pytest.mark.parametrize("where", FILES)
def test_every_reason_in_the_code_has_words(where):
    found = literals(where, FILES[where]) - OTHERS

    assert found
    assert found - reasons().keys() == set()


def test_the_patterns_find_the_reasons_that_are_known_to_be_there():
    everything = set[str]().union(*(literals(where, patterns) for where, patterns in FILES.items()))

    assert {"no_contact", "tells_nobody", "type_off", "not_chosen", "too_late", "resolved", "no_answer", "budget", "stopped", "erased"} <= everything


@pytest.mark.parametrize("folder", ["", "ru/"])
def test_every_reason_of_the_runbook_has_words(folder):
    text = (ROOT / "docs" / folder / "runbook.md").read_text("utf-8")
    heads = r"\| (?:reason of a decision|reason|причина в решении|причина) \|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)"
    tables = re.findall(heads, text)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    explained = {code for cell in cells for code in re.findall(r"`([a-z_]+)`", cell)} - {"absent_subscriber"}

    assert len(tables) == 2
    assert len(explained) > 40
    assert explained - reasons().keys() == set()


def test_every_state_has_words_for_both_readers():
    assert states().keys() == {state.value for state in State}


def test_every_answer_of_a_mail_server_has_words():
    assert {*REASONS.values(), *REASONS_BY_CODE.values(), "refused", "relay_denied"} - reasons().keys() == set()


def test_every_kind_and_state_of_a_scan_has_words():
    (check,) = [str(constraint.sqltext) for constraint in ScanRun.__table__.constraints if "needs_confirmation" in str(getattr(constraint, "sqltext", ""))]

    assert {f"kind_{kind}" for kind in KINDS} <= pieces().keys()
    assert {f"scan_{state}" for state in re.findall(r"'(\w+)'", check)} <= pieces().keys()


def test_no_words_are_there_that_nothing_says():
    code = "".join(path.read_text("utf-8") for path in (ROOT / "app").rglob("*.py"))

    unsaid = {name for name in steps() if f'"{name}"' not in code}
    assert unsaid == set()
    prefixes = ("kind_", "scan_", "barred_", "cap_", "turn_")
    assert {name for name in {*pieces(), *wording()} if f'"{name}"' not in code and f"'{name}'" not in code and not name.startswith(prefixes)} == set()


def test_no_words_are_empty_or_left_in_the_other_language():
    cyrillic = re.compile("[а-яё]", re.IGNORECASE)
    texts = {**reasons(), **steps(), **pieces()} | {
        f"{name}.{who}": getattr(said, who) for name, said in states().items() for who in ("operator", "subscriber")
    }

    assert {name for name, said in texts.items() if not said.ru or not said.en or cyrillic.search(said.en)} == set()
    without = {name for name, said in texts.items() if not cyrillic.search(re.sub(r"\{\w+\}", "", said.ru))}
    assert without <= {"sms", "email", "held", "ended"}  # names, and what others' words fill
