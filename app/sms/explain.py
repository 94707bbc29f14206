"""Why a text costs what it costs: for the author of a template."""

from app.sms import gsm


def forced_ucs2_by(text: str) -> list[str]:
    """The characters, each once and in their order, that keep a text out of the GSM alphabet; empty when it fits."""
    return list(dict.fromkeys(gsm.foreign_characters(text)))
