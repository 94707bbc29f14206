import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.embedded.redis import EmbeddedRedis


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path, so that the sockets lie in the data directory itself; whatever still runs there at the end is killed."""
    directory = Path(tempfile.mkdtemp(prefix="vst"))
    yield directory
    for server in (EmbeddedPostgres(directory), EmbeddedRedis(directory)):
        if server.pid:
            os.kill(server.pid, signal.SIGKILL)
    shutil.rmtree(directory)
