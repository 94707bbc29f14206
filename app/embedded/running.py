"""What one command needs to use the servers that another one runs."""

from pathlib import Path

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis


def find_running(data_dir: Path) -> tuple[str, str]:
    """The URLs (PostgreSQL, Redis) of the servers that run in `data_dir`; "" for one that does not. Starts nothing."""
    servers = EmbeddedPostgres(data_dir), EmbeddedRedis(data_dir)
    database_url, redis_url = (server.url if server.is_running() else "" for server in servers)
    return database_url, redis_url
