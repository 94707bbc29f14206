"""From the event to the receipt, with nothing going wrong."""

from tests.flow.stack import BOTH, Stack


async def test_one_payment_becomes_one_sms_and_one_letter_with_their_history(stack: Stack):
    run = stack.begin("one payment", [BOTH])

    await stack.tell(run)
    result = await stack.result(run)

    assert [(sms.destination, sms.parts) for sms in stack.smsc.received] == [("79165550000", 1)]
    assert [letter.to for letter in stack.mailbox.letters] == ["both@example.org"]
    assert "500" in stack.smsc.received[0].text
    assert "500" in stack.mailbox.letters[0].text

    (event_id,) = result.events
    decisions = (await stack.get(f"events/{event_id}"))["decisions"]
    assert sorted((said["channel"], said["outcome"], said["address"]) for said in decisions) == [
        ("email", "planned", "both@example.org"),
        ("sms", "planned", "+79165550000"),
    ]
    assert {said["message_id"] for said in decisions} == {message["id"] for message in result.messages}
    assert await histories(stack, result.messages) == {
        "sms": ["queued", "sending", "accepted", "delivered"],
        "email": ["queued", "sending", "accepted"],
    }


async def test_the_same_payment_told_again_reaches_nobody(stack: Stack):
    run = stack.begin("told twice", [BOTH])
    await stack.tell(run)
    before = await stack.result(run)

    await stack.tell(run)
    after = await stack.result(run)

    assert {message["id"] for message in after.messages} == {message["id"] for message in before.messages}
    assert len(stack.smsc.received) == len(stack.mailbox.letters) == 1


async def histories(stack: Stack, messages: list[dict[str, str]]) -> dict[str, list[str]]:
    """The states that each channel's message went through."""
    told = [await stack.get(f"messages/{message['id']}") for message in messages]
    return {message["channel"]: [line["state"] for line in message["history"]] for message in told}
