"""What an answer means: for the letter, for the session, for the gateway."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.sending.outcome import Accepted, Deferred, Refused, Unknown
from app.sending.smtp.replies import Reply, Stage, judge, queue_id, read_reply, reason_for, trouble_in

LATER = timedelta(seconds=30)


def reply(line: str) -> Reply:
    return read_reply([line.encode()])


@pytest.mark.parametrize(
    ("line", "stage", "outcome"),
    [
        ("250 2.0.0 Ok: queued as 4bQx7z", Stage.DOT, Accepted(("4bQx7z",))),
        ("550 5.1.1 No such user", Stage.RCPT, Refused("mailbox_unavailable", "550 5.1.1", "No such user")),
        ("550 No such user", Stage.RCPT, Refused("mailbox_unavailable", "550", "No such user")),
        ("550 5.7.1 Spam", Stage.DOT, Refused("policy", "550 5.7.1", "Spam")),
        ("552 5.3.4 Too big", Stage.MAIL, Refused("message_too_large", "552 5.3.4", "Too big")),
        ("552 Too much mail data", Stage.DOT, Refused("message_too_large", "552", "Too much mail data")),
        ("451 4.3.0 Try later", Stage.RCPT, Deferred("server_unavailable", LATER, code="451 4.3.0", detail="Try later")),
        ("450 Greylisted", Stage.RCPT, Deferred("mailbox_busy", LATER, code="450", detail="Greylisted")),
        ("421 4.7.28 Rate limit", Stage.DOT, Deferred("policy", LATER, code="421 4.7.28", detail="Rate limit")),
        # A full mailbox empties, whatever the class digit says (RFC 3463, 3.3; RFC 5321, 4.5.3.1.10).
        ("552 5.2.2 Mailbox full", Stage.RCPT, Deferred("mailbox_full", LATER, code="552 5.2.2", detail="Mailbox full")),
        ("552 Over quota", Stage.RCPT, Deferred("mailbox_full", LATER, code="552", detail="Over quota")),
        ("554 5.7.1 Relay access denied", Stage.RCPT, Deferred("relay_denied", LATER, code="554 5.7.1", detail="Relay access denied")),
        # Our own configuration: the letter loses nothing.
        ("530 5.7.0 Authentication required", Stage.MAIL, Deferred("policy", timedelta(0), False, "530 5.7.0", "Authentication required")),
        ("530 5.7.0 Must issue STARTTLS first", Stage.RCPT, Deferred("policy", timedelta(0), False, "530 5.7.0", "Must issue STARTTLS first")),
        ("553 5.1.8 Sender domain unknown", Stage.MAIL, Deferred("sender_refused", timedelta(0), False, "553 5.1.8", "Sender domain unknown")),
        ("354 what?", Stage.DOT, Unknown(detail="354 what?")),
    ],
)
def test_each_answer_makes_one_outcome(line, stage, outcome):
    assert judge(reply(line), stage, LATER) == outcome


@pytest.mark.parametrize(
    ("line", "stage", "ends_session", "of_gateway"),
    [
        ("550 5.1.1 No such user", Stage.RCPT, False, False),
        ("451 4.3.0 Try later", Stage.MAIL, False, False),
        ("552 5.3.4 Too big", Stage.MAIL, False, False),
        ("421 4.3.2 Shutting down", Stage.RCPT, True, False),
        ("354 what?", Stage.MAIL, True, False),
        ("550 5.7.1 Sender not allowed", Stage.MAIL, True, True),
        ("530 5.7.0 Authentication required", Stage.RCPT, True, True),
    ],
)
def test_an_answer_about_a_letter_leaves_the_session_and_one_about_us_ends_it(line, stage, ends_session, of_gateway):
    trouble = trouble_in(reply(line), stage)

    assert (trouble is not None) == ends_session
    assert (trouble is not None and trouble.of_gateway) == of_gateway


def test_a_detail_of_rfc_3463_that_is_not_listed_gets_the_reason_of_its_subject():
    assert reason_for(reply("550 5.7.26 SPF failed"), Stage.DOT) == "policy"
    assert reason_for(reply("550 5.1.99 New kind"), Stage.RCPT) == "mailbox_unavailable"
    assert reason_for(reply("599 5.9.9 Unheard of"), Stage.RCPT) == "refused"


@pytest.mark.parametrize(
    ("line", "queued_as"),
    [
        ("250 2.0.0 Ok: queued as 4bQx7z", "4bQx7z"),  # Postfix
        ("250 OK id=1rQabc-000123-AB", "1rQabc-000123-AB"),  # Exim
        ("250 2.0.0 49A8CF Message accepted for delivery", "49A8CF"),  # Sendmail
        ("250 ok 1700000000 qp 4711", "4711"),  # qmail
        ("250 OK", ""),
        ("250 2.0.0 Message accepted for delivery", ""),
    ],
)
def test_the_queue_id_is_found_where_the_server_gives_one(line, queued_as):
    assert queue_id(reply(line)) == queued_as


def test_an_answer_of_several_lines_is_one_text_with_one_code():
    answer = read_reply([b"550-5.7.1 Go away,\r", b"550-5.7.1 really.\r", b"550 5.7.1 https://example.org/why\r"])

    assert answer == Reply(550, "5.7.1", "Go away, really. https://example.org/why")


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_no_answer_whatsoever_breaks_the_reader_in_any_other_way_than_value_error(lines):
    try:
        answer = read_reply(lines)
    except ValueError:
        return
    assert 200 <= answer.code < 600
