import pytest

from app.core.config import Settings

PRODUCTION = {
    "env": "production",
    "database_url": "postgresql+asyncpg://vestnik@db/vestnik",
    "redis_url": "redis://redis",
    "secret_keys": "b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMSE=",
    "jwt_hs256_secret": "x" * 32,
    "public_url": "https://isp.example",
}


@pytest.fixture
def production():
    """`production(public_url="")`: settings that production would take, but for what is given; a field given as ... is left out."""

    def made(**other):
        return Settings(_env_file=None, **{name: value for name, value in (PRODUCTION | other).items() if value is not ...})

    return made
