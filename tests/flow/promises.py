"""What the service promises whatever happens to it: nothing lost, nothing twice, and no doubt beyond what was on the wire."""

from collections import Counter
from collections.abc import Iterable

from app.simulators.mailbox import ReceivedLetter
from tests.flow.stack import Result, Run


def assert_kept(run: Run, result: Result, *, in_doubt_at_most: int) -> None:
    """Each event made exactly its one SMS; none was submitted twice; each was delivered, or is `unknown` because it was on the wire when the wire broke."""
    assert_told_once(run, result, "sms")

    assert [destination for destination, times in result.submits.items() if times > 1] == []
    assert set(result.states) <= {"delivered", "unknown"}, result.states
    assert result.states["unknown"] <= in_doubt_at_most
    assert {message["reason"] for message in result.of("unknown")} <= {"no_answer"}
    assert {message["address"] for message in result.of("delivered")} <= {f"+{destination}" for destination in result.submits}


def assert_letters_kept(run: Run, result: Result, letters: Iterable[ReceivedLetter]) -> None:
    """Each event made exactly its one letter. One that was on the wire may have come twice, with the same Message-ID: its reader's server can tell."""
    assert_told_once(run, result, "email")

    assert set(result.states) == {"accepted"}, result.states
    came = Counter((letter.to, str(letter.parsed["Message-ID"])) for letter in letters)
    assert sorted(to for to, _ in came) == sorted(message["address"] for message in result.messages)
    assert max(came.values()) <= 2


def assert_told_once(run: Run, result: Result, channel: str) -> None:
    assert sorted(result.events.values()) == sorted(run.told)
    assert sorted(message["event_id"] for message in result.messages) == sorted(result.events)
    assert sorted((message["account"], message["channel"]) for message in result.messages) == sorted((account, channel) for account in run.told)
