"""Every process of the service killed outright in the middle of its work: nothing is lost, and nothing is sent twice."""

import asyncio

from tests.flow.promises import assert_kept, assert_letters_kept
from tests.flow.stack import MAIL_ACCOUNTS, SMS_ACCOUNTS, WINDOW, Run, Stack, eventually

BIND = "worker --queue smpp:sms:0"
PLAN = "worker --queue plan"
MAIL = "worker --queue mail"
SERVE = "serve --host"


async def test_bind_and_mail_workers_killed_leave_a_window_of_sms_in_doubt_and_send_letters_in_hand_again(stack: Stack):
    run = stack.begin("bind killed", SMS_ACCOUNTS)
    letters = Run("/flow/mail killed", MAIL_ACCOUNTS)
    await stack.tell(letters)
    await stack.tell(run, batch=500)

    await stack.sent(len(run.told) // 3)
    stack.kill(BIND)
    await eventually(lambda: len(stack.mailbox.letters) >= len(letters.told) // 3)
    stack.kill(MAIL)

    # The lease of a letter in hand is a minute: a mail server may take its time.
    assert_letters_kept(letters, await stack.result(letters, 120), stack.mailbox.letters)
    assert_kept(run, await stack.result(run), in_doubt_at_most=WINDOW)


async def test_plan_worker_killed_between_two_batches_loses_and_doubles_nothing(stack: Stack):
    run = stack.begin("planner killed", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.taken(run, 10)

    stack.kill(PLAN)

    await telling
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)


async def test_api_killed_while_it_is_told_has_kept_all_that_it_said_yes_to(stack: Stack):
    run = stack.begin("api killed", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.taken(run, 10)

    stack.kill(SERVE)

    await telling
    assert run.unanswered > 0
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)
