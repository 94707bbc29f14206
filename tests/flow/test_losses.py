"""What the service leans on goes away in the middle: the SMSC, the connection, Redis, PostgreSQL."""

import asyncio
import os
import signal

import redis

from app.embedded.running import find_running
from tests.flow.promises import assert_kept
from tests.flow.stack import SMS_ACCOUNTS, WINDOW, Stack, eventually


async def test_smsc_that_crashes_and_comes_back_gets_the_rest_and_nothing_twice(stack: Stack):
    run = stack.begin("smsc crashed", SMS_ACCOUNTS[:1000])
    await stack.tell(run, batch=500)
    await stack.sent(len(run.told) // 3)

    port = stack.smsc.port
    await stack.smsc.close()
    await asyncio.sleep(1)
    await stack.smsc.start(port)

    assert_kept(run, await stack.result(run), in_doubt_at_most=WINDOW)


async def test_connections_that_are_reset_leave_at_most_a_window_each_in_doubt(stack: Stack):
    run = stack.begin("connection reset", SMS_ACCOUNTS[:1000])
    await stack.tell(run, batch=500)

    for parts in (200, 500):
        await stack.sent(parts)
        stack.smsc.drop_all()

    assert_kept(run, await stack.result(run), in_doubt_at_most=2 * WINDOW)


async def test_redis_flushed_and_killed_in_the_middle_loses_nothing(stack: Stack):
    run = stack.begin("redis gone", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.taken(run, 10)

    with redis.Redis.from_url(find_running(stack.data_dir)[1]) as server:
        server.flushall()
    await stack.taken(run, 20)
    killed = stack.server_pid("redis")
    os.kill(killed, signal.SIGKILL)

    await telling
    assert set(run.statuses) == {202}
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)
    await eventually(lambda: stack.server_pid("redis") != killed)


async def test_postgres_killed_in_the_middle_is_answered_503_and_then_goes_on_by_itself(stack: Stack):
    run = stack.begin("postgres gone", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.taken(run, 10)

    # The supervisor is held, so that the database stays away for as long as we look.
    os.kill(stack.process.pid, signal.SIGSTOP)
    try:
        os.kill(stack.server_pid("postgres"), signal.SIGKILL)
        await eventually(lambda: 503 in run.statuses)
        await asyncio.sleep(2.5)  # longer than a key is remembered: who asks cannot be told either
    finally:
        os.kill(stack.process.pid, signal.SIGCONT)

    await telling
    assert set(run.statuses) <= {202, 503}
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)
