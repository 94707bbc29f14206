"""The `vestnik` command. Its exit codes: 0 done, 1 it did not work, 2 bad input; one line on stderr says why."""

import sys
from typing import Annotated

import typer

from app.commands import accounts, audit, doctor, explain, farend, forecasts, gateways, keys, processes, reports, restored, schema, templates
from app.commands.ground import BadInput, Failed

cli = typer.Typer(
    help="Vestnik tells the subscribers of a telecom billing, by SMS and e-mail, what happened to their account and what is about to.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cli.command(epilog="Example: vestnik up --demo")(processes.up)
cli.command(epilog="Example: vestnik serve --host 0.0.0.0 --port 8000")(processes.serve)
cli.command(epilog="Example: vestnik worker --queue plan --metrics-port 9101")(processes.worker)
cli.command(epilog="Example: vestnik scan exhaustion --dry-run")(forecasts.scan)
cli.command(epilog="Example: vestnik explain --account 100500 --type payment.received")(explain.explain)
cli.command(epilog="Example: vestnik doctor --lang en")(doctor.doctor)
cli.command(epilog="Example: vestnik migrate")(schema.migrate)
cli.command(epilog='Example: vestnik restored --until "2026-11-23 15:04:05+03:00"')(restored.restored)
cli.command(epilog="Example: vestnik openapi > openapi/vestnik.json")(schema.openapi)
cli.add_typer(keys.group, name="key")
cli.add_typer(audit.group, name="audit")
cli.command(epilog="Example: vestnik token --account 100500 --ttl 600")(keys.token)
cli.add_typer(gateways.group, name="gateway")
cli.add_typer(accounts.group, name="import")
cli.add_typer(templates.group, name="template")
cli.add_typer(reports.group, name="report")
cli.command(epilog="Example: vestnik smsc-simulator --port 2775 --receipt-delay 0.5")(farend.smsc_simulator)
cli.command(epilog="Example: vestnik mailbox --port 2525")(farend.mailbox)


@cli.callback()
def options(*, debug: Annotated[bool, typer.Option("--debug", help="show the traceback of an error")] = False) -> None:
    """`main` has taken --debug away, wherever it stood; this declares it for `--help`."""


def main() -> None:
    """Run the command line and end the process with its exit code."""
    words = [word for word in sys.argv[1:] if word != "--debug"] or ["--help"]
    try:
        code = cli(args=words, prog_name="vestnik", standalone_mode=False)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"vestnik: {sentence_of(error)}", err=True)
        code = code_of(error)
    except KeyboardInterrupt:
        code = 130  # 128 + SIGINT, as shells count
    sys.exit(code if isinstance(code, int) else 0)


def code_of(error: Exception) -> int:
    from app.core.errors import ConfigurationError

    if isinstance(error, BadInput | ConfigurationError):
        return 2
    # typer's own: 2 for wrong usage.
    return int(getattr(error, "exit_code", 1)) or 1


def sentence_of(error: Exception) -> str:
    """One line that a person can act on."""
    from app.core.errors import AppError, ConfigurationError
    from app.embedded.process import ServerError

    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        said = error.format_message().replace("Value error, ", "").rstrip(".")
        return _one_line(f"{said} (see {context.command_path if context else 'vestnik'} --help)")
    if isinstance(error, BadInput | Failed | ConfigurationError | AppError | ServerError):
        return _one_line(str(error))
    return _one_line(f"{type(error).__name__}: {error}") + " (--debug shows where)"


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "no reason was given"


if __name__ == "__main__":
    main()
