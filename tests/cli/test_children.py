import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.children import Child, free_port, is_free, pause_before_restart


async def eventually(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


@pytest.fixture
def lines() -> list[dict[str, object]]:
    return []


@pytest.fixture
async def child(lines):
    child = Child("simulator", ["smsc-simulator", "--port", "0"], env=dict(os.environ), on_line=lambda line: lines.append(json.loads(line)))
    task = asyncio.create_task(child.keep())
    await eventually(lambda: lines)
    yield child
    child.end(signal.SIGKILL)
    await task


async def test_child_that_was_killed_is_started_again(child, lines):
    first = child.pid

    os.kill(first, signal.SIGKILL)
    await eventually(lambda: len(lines) == 2)

    assert child.pid not in (None, first)


async def test_child_that_was_told_to_end_is_not_started_again(child, lines):
    child.end()

    await eventually(lambda: child.pid is None)
    await asyncio.sleep(0.3)
    assert child.pid is None
    assert len(lines) == 1


async def test_child_does_not_outlive_a_parent_that_was_killed_outright():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())

    parent.kill()
    parent.wait()

    await eventually(lambda: not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text())


PARENT = """
import asyncio, os
from app.children import Child
async def main():
    child = Child("simulator", ["smsc-simulator", "--port", "0"], env=dict(os.environ), on_line=lambda _: print(child.pid, flush=True))
    await child.keep()
asyncio.run(main())
"""


async def test_children_that_keep_dying_young_wait_ever_longer_up_to_half_a_minute():
    assert [pause_before_restart(lives) for lives in range(9)] == [0, 0, 1, 2, 4, 8, 16, 30, 30]


async def test_taken_port_is_not_free():
    port = free_port()
    assert is_free("127.0.0.1", port)

    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", port)

    assert not is_free("127.0.0.1", port)
    server.close()
    await server.wait_closed()
