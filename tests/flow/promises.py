"""What the service promises whatever happens to it, as one check: nothing lost, nothing twice, and no doubt beyond what was on the wire."""

from collections import Counter

from tests.flow.stack import Result, Run


def assert_kept(run: Run, result: Result, *, in_doubt_at_most: int) -> None:
    """Each event made exactly its one SMS; none was submitted twice; each was delivered, or is `unknown` because it was on the wire when the wire broke."""
    assert sorted(result.events.values()) == sorted(run.told)
    assert sorted(message["event_id"] for message in result.messages) == sorted(result.events)
    assert {(message["account"], message["channel"]) for message in result.messages} == {(account, "sms") for account in run.told}

    assert [destination for destination, times in result.submits.items() if times > 1] == []
    assert set(result.states) <= {"delivered", "unknown"}, result.states
    assert result.states["unknown"] <= in_doubt_at_most
    assert {m["address"] for m in result.of("delivered")} <= {f"+{destination}" for destination in result.submits}


def letters_by_id(stack_letters: list[object]) -> Counter[tuple[str, str]]:
    """How often each letter came: its recipient and Message-ID."""
    return Counter((letter.to, str(letter.parsed["Message-ID"])) for letter in stack_letters)
