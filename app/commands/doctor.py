"""`vestnik doctor`: what is wrong with this installation, what that means, and what to do."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.ground import BadInput, run

if TYPE_CHECKING:
    from app.core.config import Settings
    from app.desk.findings import Finding
    from app.gateways.words import Locale

LOCALES = ("ru", "en")
MARKS = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}
TODO = {"ru": "сделать", "en": "do"}
SUM = {"ru": "ошибок: {fail}, предупреждений: {warn}, в порядке: {ok}", "en": "failed: {fail}, warnings: {warn}, well: {ok}"}


def doctor(
    lang: Annotated[str | None, typer.Option("--lang", metavar="ru|en", help="the language of the words; left out: VESTNIK_LOCALE")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document, for programs")] = False,
) -> None:
    """Look at settings, database, Redis, gateways, templates, processes and queues, and say what is wrong and what to do. Changes nothing; exit 1 when something failed."""
    if lang is not None and lang not in LOCALES:
        raise BadInput(f"{lang!r}: there is ru and en")

    from app.core.errors import ConfigurationError

    settings: Settings | None = None
    try:
        settings = settings_as_found()
    except ConfigurationError as error:
        from app.desk.findings import Finding

        found = [Finding("settings", "settings_invalid", {"detail": error})]
    else:
        from app.desk.doctor import examine

        found = run(examine(settings))
    locale = chosen(lang, settings)
    typer.echo(document(found, locale) if as_json else "\n".join(lines(found, locale)))
    raise typer.Exit(any(finding.level == "fail" for finding in found))


def settings_as_found() -> "Settings":
    """The settings; where a URL is left out, that of the server which `vestnik up` runs, if it does. ConfigurationError when one is wrong."""
    from app.core.config import load_settings
    from app.embedded.running import find_running

    settings = load_settings()
    if settings.database_url and settings.redis_url:
        return settings
    database_url, redis_url = find_running(settings.data_dir)
    return settings.model_copy(update={"database_url": settings.database_url or database_url, "redis_url": settings.redis_url or redis_url})


def chosen(lang: str | None, settings: "Settings | None") -> "Locale":
    wanted = lang or (settings.locale.partition("-")[0] if settings is not None else "ru")
    return "ru" if wanted == "ru" else "en"


def counted(found: "list[Finding]") -> dict[str, int]:
    return {level: sum(finding.level == level for finding in found) for level in ("fail", "warn", "ok")}


def document(found: "list[Finding]", locale: "Locale") -> str:
    return json.dumps({"summary": counted(found), "findings": [finding.as_json(locale) for finding in found]}, ensure_ascii=False, indent=2)


def lines(found: "list[Finding]", locale: "Locale") -> list[str]:
    """A finding a line, and under it what to do."""
    said = []
    for finding in found:
        said.append(f"{MARKS[finding.level]}  {finding.means(locale)} [{finding.code}]")
        if todo := finding.do(locale):
            said.append(f"      {TODO[locale]}: {todo}")
    return [*said, SUM[locale].format(**counted(found))]
