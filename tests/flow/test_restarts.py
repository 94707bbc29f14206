"""The whole service ended in the middle, gently and not, and started again on the same data."""

import asyncio

from app.embedded.process import command_of
from tests.flow.promises import assert_kept
from tests.flow.stack import SMS_ACCOUNTS, WINDOW, Stack, eventually


async def test_sigterm_in_the_middle_leaves_nothing_in_doubt_and_the_next_start_sends_the_rest(stack: Stack):
    run = stack.begin("sigterm", SMS_ACCOUNTS)
    await stack.tell(run, batch=500)
    await stack.sent(300)

    stack.process.terminate()
    assert await stack.ended() == 0
    assert len(stack.smsc.submits) < len(run.told)
    await stack.start()

    assert_kept(run, await stack.result(run), in_doubt_at_most=0)


async def test_kill_nine_of_the_supervisor_drains_the_others_and_the_next_start_sends_the_rest(stack: Stack):
    run = stack.begin("supervisor killed", SMS_ACCOUNTS[:1000])
    await stack.tell(run, batch=500)
    await stack.sent(300)

    orphans = stack.pids("app.cli")
    stack.process.kill()
    stack.process.wait()
    await eventually(lambda: not any(command_of(pid) for pid in orphans))
    await stack.start()

    assert_kept(run, await stack.result(run), in_doubt_at_most=0)


async def test_power_cut_leaves_at_most_a_window_in_doubt_and_the_next_start_sends_the_rest(stack: Stack):
    run = stack.begin("power cut", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.sent(300)

    stack.kill_everything()
    await stack.start()

    await telling
    assert_kept(run, await stack.result(run), in_doubt_at_most=WINDOW)
