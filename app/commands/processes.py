"""`vestnik up`, `serve`, `worker`: the processes."""

import re
from pathlib import Path
from typing import Annotated

import typer

from app.commands.ground import BadInput, Failed, connected_settings, run

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="port of the HTTP API (default: VESTNIK_HTTP_PORT, 8000)")]
Host = Annotated[str | None, typer.Option(help="address that the HTTP API listens on (default: VESTNIK_HTTP_HOST, 127.0.0.1)")]

QUEUE = re.compile(r"plan|mail|cron|scan|reports|webhooks|simulated|bounces|smpp:[^:\s]+:\d+")

# Longer than any request, shorter than the 30 s within which every process must be gone.
DRAIN_SECONDS = 25


def up(
    demo: Annotated[bool, typer.Option("--demo", help="with simulators, demo accounts and sample events, and show what comes of them")] = False,
    exit_when_done: Annotated[
        bool, typer.Option("--exit-when-done", help="with --demo: end by itself, exit 0 when every message reached its expected state")
    ] = False,
    port: Port = None,
    host: Host = None,
    data_dir: Annotated[Path | None, typer.Option(help="where the embedded servers keep their data (default: VESTNIK_DATA_DIR, ./var)")] = None,
) -> None:
    """Run everything in one command: PostgreSQL and Redis of its own (unless their URLs are set), migrations, API and workers. Ctrl-C stops it all."""
    if exit_when_done and not demo:
        raise BadInput("--exit-when-done needs --demo")

    from app.core.config import load_settings

    given = {"http_port": port, "http_host": host, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    if demo and settings.env == "production":
        raise BadInput("--demo is refused with VESTNIK_ENV=production: it makes accounts and sends messages to simulators")

    from app.local import up as run_everything

    raise typer.Exit(run(run_everything(settings, demo=demo, exit_when_done=exit_when_done)))


def serve(host: Host = None, port: Port = None) -> None:
    """Run the HTTP API in this process. SIGTERM lets running requests finish, then ends it."""
    settings = connected_settings()

    import uvicorn

    from app.core.logs import configure_logs
    from app.main import create_app

    settings = settings.model_copy(update={"http_host": host or settings.http_host, "http_port": port or settings.http_port})
    configure_logs(settings.log_level, settings.log_format)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(settings),
            host=settings.http_host,
            port=settings.http_port,
            loop="uvloop",
            http="httptools",
            ws="none",
            access_log=False,
            server_header=False,
            log_config=None,
            timeout_graceful_shutdown=DRAIN_SECONDS,
        )
    )
    server.run()
    if not server.started:
        raise Failed(f"the API did not start on {settings.http_host}:{settings.http_port}")


def worker(
    queue: Annotated[
        list[str] | None,
        typer.Option(help="plan, mail, cron, scan, reports, webhooks, bounces or smpp:<gateway>:<slot>; may be repeated; without it, all of them"),
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(min=1, max=65535, help="serve Prometheus metrics on this port")] = None,
) -> None:
    """Run the workers of the given queues, or of all of them, in this process. SIGTERM drains it within 30 s."""
    for name in queue or []:
        if not QUEUE.fullmatch(name):
            raise BadInput(f"--queue {name}: there is plan, mail, cron, scan, reports, webhooks, bounces and smpp:<gateway>:<slot>")
    settings = connected_settings()

    from app.core.logs import configure_logs
    from app.worker import run_worker

    configure_logs(settings.log_level, settings.log_format)
    raise typer.Exit(run(run_worker(settings, queue or [], metrics_port)))
