"""A look at a mail gateway without sending anything."""

from typing import Any

from app.gateways.smtp import SmtpSettings
from app.sending.smtp.entry import SessionNotOpened, open_session, tls_context


async def check(settings: SmtpSettings) -> dict[str, Any]:
    """Connects, greets, secures and authenticates as sending would, and takes its leave. `ok`, `stage` that failed or None, `code` and `detail` in words."""
    try:
        context = None if settings.tls == "none" else await tls_context(settings)
        session = await open_session(settings, context)
    except SessionNotOpened as error:
        return {"ok": False, "stage": error.trouble.stage.value, "code": error.trouble.code, "detail": error.trouble.detail}
    version, offers = session.tls_version, sorted(session.extensions)
    await session.quit()
    secured = f"encrypted with {version}" if version else "not encrypted"
    entered = f"authenticated as {settings.username}" if settings.username else "without authentication"
    return {"ok": True, "stage": None, "code": "", "detail": f"connected, {secured}, {entered}", "tls": version, "extensions": offers}
