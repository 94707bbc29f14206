"""`vestnik migrate` and `vestnik openapi`: the schema and the contract."""

import typer

from app.commands.ground import connected_settings, run


def migrate() -> None:
    """Bring the database to the newest schema, with the default notification types and templates. Safe to repeat, and from several machines at once."""
    settings = connected_settings()

    from app.core.migrate import head
    from app.schema import prepare

    run(prepare(settings.database_url))
    typer.echo(f"the schema is at {head()}")


def openapi() -> None:
    """Print the OpenAPI document. It needs no database, and no setting changes it."""
    from app.core.config import Settings
    from app.main import contract_text

    # Nothing connects to these: the document must be the same on every machine.
    nowhere = Settings(_env_file=None, env="local", database_url="postgresql+asyncpg://nowhere/nowhere", redis_url="redis://nowhere", docs="on")
    typer.echo(contract_text(nowhere), nl=False)
