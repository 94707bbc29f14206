"""What a template's version says of its SMS: how its characters are written, how long it may become, and what the operator has registered."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.sms.latin import in_latin
from app.sms.registered import Registered
from app.sms.typography import plain

_LINK = re.compile(r"(\bhttps?://[^\s«»“”„]+)")


def _readable(pattern: str) -> str:
    Registered(pattern)
    return pattern


class SmsOptions(BaseModel):
    """Options of a version of an SMS template. What is left out changes nothing."""

    model_config = ConfigDict(extra="forbid")

    typography: bool = Field(
        default=False, description='Quotes, dashes, spaces, `…`, `№` and `₽` as plain characters: `"`, `-`, a space, `...`, `N`, `р.` or `RUB`'
    )
    translit: Literal["off", "always"] = Field(default="off", description="`always`: the finished text in Latin letters")
    max_parts: Annotated[int, Field(strict=True, ge=1, le=10)] | None = Field(
        default=None, description="Parts that the text may take with ordinary values: more are not published"
    )
    registered: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_readable)] | None = Field(
        default=None,
        description="The text as it is registered with the operator; gaps: `%w` one word, `%d` digits, `%*` anything up to 60 characters, `%%` a percent sign",
        examples=["Счёт %w: платёж %* получен."],
    )


def applied(text: str, options: Mapping[str, Any]) -> str:
    """The finished text as these options have it written: typography first, then Latin letters. Stored options are good.

    A link stays as it is: in other letters it would lead somewhere else."""
    if not (options.get("typography") or options.get("translit") == "always"):
        return text
    if "://" not in text:
        return _applied(text, options)
    return "".join(piece if number % 2 else _applied(piece, options) for number, piece in enumerate(_LINK.split(text)))


def _applied(text: str, options: Mapping[str, Any]) -> str:
    is_latin = options.get("translit") == "always"
    if options.get("typography"):
        text = plain(text, latin=is_latin or None)
    return in_latin(text) if is_latin else text
