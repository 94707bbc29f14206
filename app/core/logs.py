"""Structured logs: one line an event, with the request's id, and no address, text or secret in clear."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

PHONE = re.compile(r"(\+\d)\d{4,10}(\d{4})(?!\d)")
EMAIL = re.compile(r"([\w.+-])[\w.+-]*@([\w-]+(?:\.[\w-]+)+)")
# The path of a link that refuses a type: whoever has its token may use it.
UNSUBSCRIBE = re.compile(r"(/unsubscribe/)[\w.~%-]+")
CREDENTIALS = re.compile(r"(://[^/@:\s]*:)[^@/\s]+@")
SECRET_KEYS = frozenset({"password", "secret", "token", "key", "authorization"})
ADDRESS_KEYS = frozenset({"address", "to", "phone", "email", "recipient", "sender"})


def mask_address(address: str) -> str:
    """`+7***4567` of a phone, `i***@example.org` of an e-mail address: enough to recognise, too little to write to."""
    if "@" in address:
        local, _, domain = address.partition("@")
        return f"{local[:1]}***@{domain}"
    return f"{address[:2]}***{address[-4:]}" if len(address) > 8 else "***"


def _mask(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _masked(key, value)
    return event


def _masked(key: str, value: Any) -> Any:
    if key in SECRET_KEYS:
        return "***"
    if isinstance(value, dict):
        return {inner: _masked(str(inner), item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(key, item) for item in value]
    if not isinstance(value, str):
        return value
    if key in ADDRESS_KEYS:
        return mask_address(value)
    if "://" in value:
        value = CREDENTIALS.sub(r"\1***@", value)
    if "/unsubscribe/" in value:
        value = UNSUBSCRIBE.sub(r"\1***", value)
    if "@" in value:
        value = EMAIL.sub(r"\1***@\2", value)
    return PHONE.sub(r"\1***\2", value) if "+" in value else value


def configure_logs(level: str = "info", form: Literal["json", "text"] = "json") -> None:
    """Send structlog and the standard library's loggers to stderr in one form."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _mask,
    ]
    last: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str) if form == "json" else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processor=last, foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared])
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(getattr(logging, level.upper()))
    for noisy in ("arq", "asyncio", "uvicorn.access", "httpx", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
