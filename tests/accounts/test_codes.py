"""How many codes may be sent, and what of them is stored."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from hypothesis import given, settings
from hypothesis import strategies as st

from app.accounts.codes import Digests, Sending, new_code, next_sending
from app.core.config import Settings

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
KEYS = ("b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMSE=", "b3VyLW93bi1rZXktdGhhdC1pcy1ub3QtbG9jYWwtMiE=")

sendings = st.lists(
    st.builds(
        lambda seconds, account, address: Sending(NOW - timedelta(seconds=seconds), account or not address, address),
        st.integers(0, 100_000) | st.integers(0, 4000),
        st.booleans(),
        st.booleans(),
    ),
    max_size=40,
)


def allowed(sent, moment):
    """The four rules as they are told to a subscriber, counted one by one."""

    def lately(span, *marks):
        return sum(moment - span < one.at <= moment and all(getattr(one, mark) for mark in marks) for one in sent)

    return (
        lately(timedelta(seconds=60), "same_account", "same_address") < 1
        and lately(timedelta(hours=1), "same_account", "same_address") < 5
        and lately(timedelta(days=1), "same_account") < 10
        and lately(timedelta(days=1), "same_address") < 20
    )


@settings(max_examples=500)
@given(sendings)
def test_a_code_may_be_sent_when_all_four_rules_allow_it_and_not_a_second_sooner(sent):
    begins = next_sending(sent, NOW)

    assert (begins == NOW) == allowed(sent, NOW)
    assert allowed(sent, begins)
    assert begins == NOW or not allowed(sent, begins - timedelta(microseconds=1))


def test_a_code_has_six_digits_and_any_of_them_may_be_the_first():
    made = [new_code() for _ in range(2000)]

    assert all(len(code) == 6 and code.isascii() and code.isdecimal() for code in made)
    assert set(Counter(code[0] for code in made)) == set("0123456789")


def digests(*keys):
    return Digests(Settings(_env_file=None, secret_keys=",".join(keys)))


def test_digest_says_nothing_without_the_key_and_is_of_one_contact_alone():
    contact, other = uuid4(), uuid4()

    assert digests(KEYS[0]).of_code(contact, "482913") != digests(KEYS[1]).of_code(contact, "482913")
    assert digests(KEYS[0]).of_code(contact, "482913") != digests(KEYS[0]).of_code(other, "482913")
    assert not digests(KEYS[0]).is_code(other, "482913", digests(KEYS[0]).of_code(contact, "482913"))


def test_code_that_was_sent_before_the_keys_were_rotated_is_still_good():
    contact = uuid4()
    before = digests(KEYS[0]).of_code(contact, "482913")

    rotated = digests(KEYS[1], KEYS[0])

    assert rotated.is_code(contact, "482913", before)
    assert rotated.of_code(contact, "482913") != before
    assert not digests(KEYS[1]).is_code(contact, "482913", before)
