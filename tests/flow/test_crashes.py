"""Every process of the service killed outright in the middle of its work: nothing is lost, and nothing is sent twice."""

import asyncio
from collections import Counter

from tests.flow.promises import assert_kept
from tests.flow.stack import MAIL_ACCOUNTS, SMS_ACCOUNTS, WINDOW, Stack, eventually

BIND = "worker --queue smpp:sms:0"
PLAN = "worker --queue plan"
MAIL = "worker --queue mail"
SERVE = "serve --host"


async def test_bind_worker_killed_in_the_middle_leaves_at_most_a_window_in_doubt(stack: Stack):
    run = stack.begin("bind killed", SMS_ACCOUNTS)
    await stack.tell(run, batch=500)
    await stack.sent(len(run.told) // 3)

    stack.kill(BIND)

    result = await stack.result(run)
    assert_kept(run, result, in_doubt_at_most=WINDOW)
    assert all(message["reason"] == "no_answer" for message in result.of("unknown"))


async def test_plan_worker_killed_between_two_batches_loses_and_doubles_nothing(stack: Stack):
    run = stack.begin("planner killed", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.sent(100)

    stack.kill(PLAN)

    await telling
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)


async def test_api_killed_while_it_is_told_has_kept_all_that_it_said_yes_to(stack: Stack):
    run = stack.begin("api killed", SMS_ACCOUNTS[:1000])
    telling = asyncio.create_task(stack.tell(run, batch=20, pause=0.04))
    await stack.sent(100)

    stack.kill(SERVE)

    await telling
    assert run.unanswered > 0
    assert_kept(run, await stack.result(run), in_doubt_at_most=0)


async def test_mail_worker_killed_sends_what_it_had_in_hand_once_more_with_the_same_message_id(stack: Stack):
    run = stack.begin("mail killed", MAIL_ACCOUNTS)
    await stack.tell(run)
    await eventually(lambda: len(stack.mailbox.letters) >= len(run.told) // 3)

    stack.kill(MAIL)

    result = await stack.result(run, 120)
    assert sorted(message["event_id"] for message in result.messages) == sorted(result.events)
    assert result.states == {"accepted": len(run.told)}
    came = Counter((letter.to, str(letter.parsed["Message-ID"])) for letter in stack.mailbox.letters)
    assert sorted(to for to, _ in came) == sorted(f"{account}@example.org" for account in run.told)
    assert max(came.values()) <= 2
