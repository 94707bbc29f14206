"""Reports as mail servers write them, and as nobody should."""

import base64
import zipfile
from email.message import EmailMessage
from io import BytesIO
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.tracking.bounce_kinds import judge
from app.tracking.dsn import PARTS, read
from tests.builders.bounces import a_block, a_complaint, a_dsn, a_recipient, a_report

US = "subscriber@example.org"


def verdict_of(raw, address=US):
    return judge(read(raw), address)


def test_a_report_of_postfix_is_read_whole():
    message_id = f"<{uuid4()}@isp.example>"

    report = read(
        a_dsn(a_recipient(US, original_recipient="rfc822;" + US), returned=f"Message-ID: {message_id}\r\nReturn-Path: <bounces+x@mail.isp.example>\r\n")
    )

    assert report.source == "dsn"
    (about,) = report.about
    assert (about.final, about.original, about.action, about.status, about.diagnostic) == (US, US, "failed", "5.1.1", "550 5.1.1 User unknown")
    assert report.message_ids == [message_id]
    assert "bounces+x@mail.isp.example" in report.addresses


def test_a_report_of_exchange_is_read():
    """No Original-Recipient, a server's own words in brackets, Russian text in base64, the letter whole."""
    words = base64.b64encode("Не удалось доставить сообщение".encode()).decode()
    raw = a_report(
        (
            "multipart/alternative; boundary=inner",
            f"--inner\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{words}\r\n--inner--",
        ),
        (
            "message/delivery-status",
            a_block(reporting_mta="dns;mail.corp.example", received_from_mta="dns;relay.example")
            + f"\r\nFinal-Recipient: RFC822;{US}\r\nAction: failed\r\nStatus: 5.1.10\r\nDiagnostic-Code: smtp;550 5.1.10 "
            + "RESOLVER.ADR.RecipientNotFound; Recipient not found by\r\n SMTP address lookup\r\nX-Display-Name: Subscriber",
        ),
        ("message/rfc822", "Message-ID: <x@isp.example>\r\nSubject: Hello\r\n\r\nHello"),
    )

    verdict = verdict_of(raw)

    assert (verdict.kind, verdict.status, verdict.reason) == ("hard", "5.1.10", "domain_unavailable")
    assert verdict.diagnostic.endswith("Recipient not found by SMTP address lookup")
    assert read(raw).message_ids == ["<x@isp.example>"]


@pytest.mark.parametrize(
    ("action", "status", "diagnostic", "kind", "reason"),
    [
        ("failed", "5.1.1", "smtp; 550 5.1.1 User unknown", "hard", "mailbox_unavailable"),
        ("failed", "5.1.2", "dns; host not found", "hard", "domain_unavailable"),
        ("failed", "5.1.0", "smtp; 550 address rejected", "hard", "mailbox_unavailable"),
        ("failed", "5.2.1", "smtp; 550 account disabled", "hard", "mailbox_disabled"),
        ("failed", "5.4.4", "X-Postfix; Host or domain name not found", "hard", "no_route"),
        ("failed", "5.4.1", "smtp; 550 5.4.1 Recipient address rejected: Access denied", "hard", "mailbox_unavailable"),
        ("failed", "5.4.1", "smtp; no answer from host", "soft", "no_route"),
        ("failed", "5.0.0", "smtp; 550 5.1.1 no mailbox here by that name", "hard", "mailbox_unavailable"),
        ("failed", "5.0.0", "smtp; 550 User unknown in virtual mailbox table", "hard", "mailbox_unavailable"),
        ("failed", "5.0.0", "smtp; 554 something", "soft", "refused"),
        ("failed", "", "smtp; 550 no such user here", "hard", "mailbox_unavailable"),
        ("failed", "", "", "soft", "refused"),
        ("failed", "5.1.8", "smtp; 550 bad sender's address", "soft", "sender_refused"),
        ("failed", "5.2.2", "smtp; 552 5.2.2 mailbox full", "soft", "mailbox_full"),
        ("failed", "5.7.1", "smtp; 550 5.7.1 looks like spam", "soft", "policy"),
        ("failed", "4.4.7", "smtp; delivery time expired", "soft", "no_route"),
        ("failed (bad destination mailbox)", "5.1.1 (unknown)", "", "hard", "mailbox_unavailable"),
        ("delayed", "4.4.1", "X-Postfix; connection timed out", "delayed", "no_route"),
        ("", "4.4.1", "", "delayed", "no_route"),
        ("", "5.1.1", "", "hard", "mailbox_unavailable"),
        ("delivered", "2.0.0", "", "delivered", "refused"),
        ("relayed", "2.0.0", "", "unknown", "refused"),
        ("expanded", "2.0.0", "", "unknown", "refused"),
    ],
)
def test_what_a_server_said_decides(action, status, diagnostic, kind, reason):
    verdict = verdict_of(a_dsn(a_recipient(US, action, status, diagnostic)))

    assert verdict.kind == kind
    if kind in {"hard", "soft"}:
        assert verdict.reason == reason


def test_of_several_recipients_ours_decides():
    raw = a_dsn(
        a_recipient("other@example.org"),
        a_recipient("somebody@corp.example", "delayed", "4.4.1", "smtp; timeout", original_recipient=f"rfc822;{US.upper()}"),
        a_recipient("third@example.org", "delivered", "2.0.0", ""),
    )

    assert (verdict_of(raw).kind, verdict_of(raw).status) == ("delayed", "4.4.1")
    assert verdict_of(raw, "third@example.org").kind == "delivered"


def test_of_several_strangers_the_mildest_decides():
    raw = a_dsn(a_recipient("one@example.net"), a_recipient("two@example.net", "failed", "5.2.2", "smtp; mailbox full"))

    assert verdict_of(raw).kind == "soft"  # an alias: one of the two mailboxes lives


def test_a_block_without_the_empty_line_before_it_is_read_all_the_same():
    raw = a_report(("message/delivery-status", a_block(reporting_mta="dns; x") + a_recipient(US)))

    assert verdict_of(raw).kind == "hard"


def test_an_international_report_is_read():
    raw = a_report(("message/global-delivery-status; charset=utf-8", a_block(reporting_mta="dns; x") + "\r\n" + a_recipient("абонент@пример.рф")))

    assert verdict_of(raw).recipient == "абонент@пример.рф"


def test_a_report_in_base64_with_bare_line_feeds_is_read():
    status = base64.encodebytes(a_recipient(US).replace("\r\n", "\n").encode()).decode()
    raw = a_report(("message/delivery-status\r\nContent-Transfer-Encoding: base64", status)).replace(b"\r\n", b"\n")

    assert verdict_of(raw).kind == "hard"


def test_a_report_that_was_forwarded_is_read():
    forwarded = EmailMessage()
    forwarded["To"] = "bounces@isp.example"
    forwarded.set_content("see below")
    inner = a_dsn(a_recipient(US)).decode()
    raw = f"Content-Type: multipart/mixed; boundary=f\r\n\r\n--f\r\nContent-Type: message/rfc822\r\n\r\n{inner}\r\n--f--\r\n".encode()

    assert verdict_of(raw).kind == "hard"


@pytest.mark.parametrize(
    ("feedback", "kind"),
    [("abuse", "complaint"), ("Fraud", "complaint"), ("opt-out", "complaint"), ("not-spam", "unknown"), ("auth-failure", "unknown"), ("virus", "unknown")],
)
def test_a_complaint_is_one_when_somebody_does_not_want_the_letters(feedback, kind):
    report = read(a_complaint(feedback, returned="Message-ID: <x@isp.example>\r\n", original_mail_from="<bounces+y@mail.isp.example>"))

    assert (report.source, judge(report, US).kind) == ("arf", kind)
    assert report.message_ids == ["<x@isp.example>"]
    assert "bounces+y@mail.isp.example" in report.addresses
    assert report.complainers == [US]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"Hello",
        b"Subject: Out of office\r\nAuto-Submitted: auto-replied\r\n\r\nI am away until Monday.\r\n\r\nMessage-ID: <x@isp.example>",
        b"Content-Type: multipart/report; boundary=x\r\n\r\n",
        b"Content-Type: multipart/report\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed",
        b'Content-Type: multipart/report; boundary=""\r\n\r\n----',
        b"Content-Type: message/delivery-status; boundary\r\n\r\n\r\n\r\n",
        a_report(("message/delivery-status", "Reporting-MTA: dns; x")),
        a_report(("message/delivery-status\r\nContent-Transfer-Encoding: base64", "!!!!")),
        a_report(("message/rfc822", "Message-ID: <x@isp.example>\r\n\r\nno status beside it")),
        a_dsn(a_recipient(US))[:300],
    ],
)
def test_what_says_nothing_is_unknown(raw):
    report = read(raw)

    assert (report.source, report.message_ids) == ("none", [])
    assert judge(report, US).kind == "unknown"


def test_a_report_that_was_cut_off_is_read_as_far_as_it_goes():
    raw = a_dsn(a_recipient(US))

    assert verdict_of(raw[: raw.index(b"text/rfc822-headers") + 10]).kind == "hard"


def test_a_bomb_is_never_unpacked():
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", b"\0" * (200 << 20))
    bomb = base64.encodebytes(packed.getvalue()).decode()
    raw = a_report(("application/zip\r\nContent-Transfer-Encoding: base64", bomb), ("message/delivery-status", a_recipient(US)))

    assert verdict_of(raw).kind == "hard"


def test_a_status_that_goes_on_for_ever_is_read_at_its_beginning():
    raw = a_report(("message/delivery-status", a_recipient(US) + "\r\n" * 200_000 + a_recipient("late@example.org")))

    assert [about.final for about in read(raw).about] == [US]


def test_nobody_can_make_it_walk_deep_or_wide():
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(10_000)) + a_dsn(a_recipient(US))
    wide = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"--b\r\n\r\n" * (PARTS + 10)
        + b"--b\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\n"
    )
    chain = b"Content-Type: message/rfc822\r\n\r\n" * 10_000 + a_dsn(a_recipient(US))

    assert [read(raw).source for raw in (deep, wide, chain)] == ["none"] * 3


def test_what_a_server_writes_can_be_stored():
    raw = a_dsn(a_recipient(US, diagnostic="smtp; 550 \udcff\udcfe nul\0nul " + "x" * 5000))

    verdict = verdict_of(raw)

    assert "\0" not in verdict.diagnostic
    assert len(verdict.diagnostic.encode()) <= 4000


@given(st.binary(max_size=2000))
def test_no_octets_make_it_fail(raw):
    judge(read(raw), US)
    judge(read(b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n" + raw), US)
    judge(read(b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n" + raw), US)
    judge(read(b"Content-Type: " + raw), US)


@given(st.data())
def test_no_damage_to_a_report_makes_it_fail(data):
    raw = bytearray(a_dsn(a_recipient(US), returned="Message-ID: <x@isp.example>\r\n"))
    for _ in range(data.draw(st.integers(1, 20))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=5))

    judge(read(bytes(raw)), US)
