"""`vestnik explain`: why an account was told something, or was not."""

from datetime import date, datetime
from typing import Annotated, Any

import typer

from app.commands.ground import BadInput, accepted, connected_settings, own_api, run

LOCALES = ("ru", "en")
NOW = {"ru": "сейчас", "en": "now"}
MARGIN = 21  # a time of day to the second, and a space


def explain(
    account: Annotated[str, typer.Option(metavar="NUMBER", help="the account")],
    kind: Annotated[str, typer.Option("--type", metavar="TYPE", help="a notification type, as payment.received")],
    day: Annotated[str | None, typer.Option(metavar="DATE", help="on the account's own calendar, as 2026-11-23; left out: today")] = None,
    locale: Annotated[str | None, typer.Option(metavar="ru|en", help="the language of the words; left out: VESTNIK_LOCALE")] = None,
) -> None:
    """Say step by step what was decided about an account, a type and a day, and why. Where nothing happened: what would happen now."""
    if day is not None:
        try:
            date.fromisoformat(day)
        except ValueError:
            raise BadInput(f"{day!r} is no date: write it as 2026-11-23") from None
    if locale is not None and locale not in LOCALES:
        raise BadInput(f"{locale!r}: there is ru and en")
    if not 0 < len(account) <= 64 or "/" in account:
        raise BadInput("--account must have 1 to 64 characters, and no /")
    asked = {"type": kind} | ({"day": day} if day else {}) | ({"locale": locale} if locale else {})
    for line in lines(run(asked_for(account, asked))):
        typer.echo(line)


async def asked_for(account: str, asked: dict[str, str]) -> dict[str, Any]:
    from urllib.parse import quote

    async with own_api(connected_settings(), "vestnik explain") as api:
        explanation: dict[str, Any] = accepted(await api.get(f"/accounts/{quote(account, safe='')}/explain", params=asked), account)
        return explanation


def lines(explanation: dict[str, Any]) -> list[str]:
    """A step a line, after its time on this machine's clock; its code at the end, for whoever looks it up."""
    head = f"{explanation['account']}  {explanation['type']}  {explanation['day']}"
    return [head, *(f"{_time(step['at'], explanation['locale'])}{step['words']} [{step['code']}]" for step in explanation["steps"])]


def _time(at: str | None, locale: str) -> str:
    said = NOW[locale] if at is None else f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S}"
    return said.ljust(MARGIN)
