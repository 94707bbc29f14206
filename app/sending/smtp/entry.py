"""Getting in: TCP, TLS, EHLO and AUTH, step by step through aiosmtplib."""

import asyncio
import ssl

import aiosmtplib
from aiosmtplib import SMTPException, SMTPResponseException

from app.gateways.smtp import SmtpSettings
from app.sending.smtp.replies import DETAIL_LIMIT, Reply, Stage, Trouble, read_reply
from app.sending.smtp.session import Session


class SessionNotOpened(Exception):
    """The server could not be reached, or did not let us in."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


async def tls_context(settings: SmtpSettings) -> ssl.SSLContext:
    """How certificates are checked. SessionNotOpened when `ca_file` cannot be read."""
    try:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=settings.profile.ca_file)
    except OSError as error:
        raise SessionNotOpened(Trouble(Stage.TLS, f"ca_file: {error}", of_gateway=True)) from error
    if not settings.profile.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_session(settings: SmtpSettings, context: ssl.SSLContext | None) -> Session:
    """A session that is ready for letters. SessionNotOpened otherwise; it never goes on in plain text where TLS was asked for."""
    profile, stage = settings.profile, Stage.CONNECT
    client = aiosmtplib.SMTP(
        hostname=settings.host,
        port=settings.port,
        local_hostname=profile.ehlo_name,
        timeout=profile.connect_timeout,
        use_tls=settings.tls == "implicit",
        start_tls=False,
        tls_context=context,
    )
    try:
        await client.connect()
        stage = Stage.EHLO
        await client.ehlo()
        if settings.tls == "starttls":
            stage = Stage.TLS
            await client.starttls()
            await client.ehlo()  # RFC 3207, 4.2: what was offered in plain text counts for nothing
        if settings.username:
            stage = Stage.AUTH
            await client.login(settings.username, settings.password.get_secret_value())
        return Session.take_over(client, settings)
    except (SMTPException, OSError, ValueError) as error:  # ValueError: a host name that IDNA cannot write down
        client.close()
        raise SessionNotOpened(_trouble_of(error, stage)) from error
    except BaseException:
        client.close()
        raise


def _trouble_of(error: Exception, stage: Stage) -> Trouble:
    """Where opening failed, and the server's own words if it said any."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLError):  # in CONNECT too: implicit TLS
        return Trouble(Stage.TLS, str(cause)[:DETAIL_LIMIT], of_gateway=True)
    if isinstance(error, SMTPResponseException):
        reply = read_reply([f"{error.code} {error.message}".encode(errors="replace")]) if 200 <= error.code < 600 else Reply(0, text=str(error.message))
        where = Stage.GREETING if stage is Stage.CONNECT else stage
        return Trouble(where, reply.text[:DETAIL_LIMIT], reply.status if reply.code else "", of_gateway=reply.code >= 500)
    return Trouble(stage, str(error)[:DETAIL_LIMIT] or type(error).__name__)
