"""Mail that came back, written after the shapes of the standards and of those who write such mail."""

from typing import Any

from app.core.config import Settings
from app.sending.smtp.verp import Verp

RETURN_PATH = "bounces@mail.isp.example"


def a_block(**fields: str) -> str:
    """`final_recipient="rfc822; a@b.example"` as a line of its block."""
    return "".join(f"{name.replace('_', '-').title()}: {value}\r\n" for name, value in fields.items())


def a_recipient(address: str, action: str = "failed", status: str = "5.1.1", diagnostic: str = "smtp; 550 5.1.1 User unknown", **more: str) -> str:
    return a_block(final_recipient=f"rfc822; {address}", action=action, status=status, diagnostic_code=diagnostic, **more)


def a_report(*parts: tuple[str, str], kind: str = "delivery-status", **headers: str) -> bytes:
    """A multipart/report (RFC 6522) of these parts: content type (further lines may follow it), and content."""
    given = {"From": "MAILER-DAEMON@relay.example", "To": RETURN_PATH, "Subject": "Undelivered Mail Returned to Sender", "MIME-Version": "1.0"} | headers
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    head += f'Content-Type: multipart/report; report-type={kind};\r\n\tboundary="5D1A.173/relay.example"\r\n'
    body = "".join(f"--5D1A.173/relay.example\r\nContent-Type: {content_type}\r\n\r\n{content}\r\n" for content_type, content in parts)
    return f"{head}\r\nThis is a MIME-encapsulated message.\r\n\r\n{body}--5D1A.173/relay.example--\r\n".encode("utf-8", "surrogateescape")


def a_dsn(*recipients: str, returned: str = "", **headers: str) -> bytes:
    """As Postfix writes them: words, status, the letter's header. `returned`: further lines of that header."""
    reporting = a_block(reporting_mta="dns; relay.example", arrival_date="Mon, 23 Nov 2026 10:00:00 +0300")
    return a_report(
        ("text/plain; charset=us-ascii", "I'm sorry to have to inform you that your message could not\r\nbe delivered."),
        ("message/delivery-status", reporting + "\r\n" + "\r\n".join(recipients)),
        ("text/rfc822-headers", f"From: MyISP <noreply@isp.example>\r\nTo: subscriber@example.org\r\nSubject: Hello\r\n{returned}"),
        **headers,
    )


def a_complaint(feedback: str = "abuse", returned: str = "", **fields: str) -> bytes:
    """As a feedback loop writes it (RFC 5965, appendix B)."""
    given = {"user_agent": "SomeGenerator/1.0", "version": "1", "original_rcpt_to": "subscriber@example.org"} | fields
    return a_report(
        ("text/plain", "This is an email abuse report."),
        ("message/feedback-report", a_block(feedback_type=feedback, **given)),
        ("message/rfc822", f"From: noreply@isp.example\r\n{returned}Subject: Hello\r\n\r\nHello\r\n"),
        kind="feedback-report",
        To="fbl@isp.example",
    )


def envelope_of(settings: Settings, message_id: Any) -> str:
    """The address that the letter of this message was sent from on the wire."""
    return Verp(settings).sender(RETURN_PATH, message_id)
