"""Getting in: TLS with the certificate checked, AUTH, and the look without sending."""

import asyncio

import pytest

from app.gateways.smtp import SmtpSettings
from app.sending.outcome import Accepted
from app.sending.smtp.check import check
from app.simulators.mailbox import HANG_UP, Mailbox, Rule


def settings(mailbox: Mailbox, **changes) -> SmtpSettings:
    profile = {"connect_timeout": 2, **changes.pop("profile", {})}
    return SmtpSettings.model_validate(
        {"kind": "smtp", "host": "localhost", "port": mailbox.port, "tls": "none", "from": "noreply@isp.example", "profile": profile, **changes}
    )


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
@pytest.mark.parametrize("pipelining", [True, False])
async def test_letters_go_through_tls_with_a_certificate_that_is_trusted(certificate, sending_to, letter, tls, pipelining):
    async with Mailbox(tls_context=certificate.server, implicit_tls=tls == "implicit", pipelining=pipelining) as mailbox:
        sending = await sending_to(mailbox, tls=tls, profile={"ca_file": certificate.ca_file})

        outcomes = await sending.ship(letter(), letter(text="ёж\n" * 100_000))

        assert outcomes == [Accepted(("00000001",)), Accepted(("00000002",))]
        assert mailbox.letters[1].text == "ёж\n" * 100_000
        assert (await check(settings(mailbox, tls=tls, profile={"ca_file": certificate.ca_file})))["tls"] == "TLSv1.3"


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_an_untrusted_certificate_stops_the_gateway_before_anything_is_sent(certificate, sending_to, tls):
    async with Mailbox(tls_context=certificate.server, implicit_tls=tls == "implicit", credentials=("isp", "secret")) as mailbox:
        sending = await sending_to(mailbox, tls=tls, username="isp", password="secret")

        await sending.until(lambda: sending.pool.status.last_error is not None)

        assert sending.pool.status.last_error.where == "tls"
        assert "CERTIFICATE_VERIFY_FAILED" in sending.pool.status.last_error.detail
        assert mailbox.commands["AUTH"] == 0


async def test_an_untrusted_certificate_is_taken_only_when_checking_is_switched_off(certificate):
    async with Mailbox(tls_context=certificate.server, implicit_tls=True) as mailbox:
        assert (await check(settings(mailbox, tls="implicit", profile={"verify": False})))["ok"]


async def test_a_certificate_for_another_name_is_refused(certificate):
    async with Mailbox(host="127.0.0.2", tls_context=certificate.server, implicit_tls=True) as mailbox:
        report = await check(settings(mailbox, host="127.0.0.2", tls="implicit", profile={"ca_file": certificate.ca_file}))

        assert (report["ok"], report["stage"]) == (False, "tls")
        assert "127.0.0.2" in report["detail"]


async def test_without_starttls_on_offer_nothing_goes_in_plain_text(sending_to):
    async with Mailbox(credentials=("isp", "secret")) as mailbox:
        sending = await sending_to(mailbox, tls="starttls", username="isp", password="secret")

        await sending.until(lambda: sending.pool.status.last_error is not None)

        assert sending.pool.status.last_error.where == "tls"
        assert (mailbox.commands["AUTH"], mailbox.commands["MAIL"]) == (0, 0)


async def test_a_missing_authority_file_is_named_in_the_error(certificate):
    async with Mailbox(tls_context=certificate.server, implicit_tls=True) as mailbox:
        report = await check(settings(mailbox, tls="implicit", profile={"ca_file": "/nowhere/ca.pem"}))

        assert (report["ok"], report["stage"]) == (False, "tls")
        assert "ca_file" in report["detail"]


@pytest.mark.parametrize("tls", ["starttls", "implicit", "none"])
async def test_letters_go_after_authentication_where_it_is_required(certificate, sending_to, letter, tls):
    context = None if tls == "none" else certificate.server
    async with Mailbox(tls_context=context, implicit_tls=tls == "implicit", credentials=("isp", "пароль")) as mailbox:
        sending = await sending_to(mailbox, tls=tls, username="isp", password="пароль", profile={"ca_file": certificate.ca_file})

        assert await sending.ship(letter()) == [Accepted(("00000001",))]


async def test_a_wrong_password_takes_the_gateway_down_and_touches_no_letter(sending_to):
    async with Mailbox(credentials=("isp", "secret")) as mailbox:
        sending = await sending_to(mailbox, username="isp", password="wrong")

        await sending.until(lambda: sending.pool.status.last_error is not None)

        assert (sending.pool.status.last_error.where, sending.pool.status.last_error.code) == ("auth", "535 5.7.8")
        assert sending.pool.allowance() == 0
        assert "wrong" not in repr(sending.pool.status)


async def test_a_check_says_how_the_connection_stands_and_sends_nothing(mailbox):
    report = await check(settings(mailbox))

    assert report["ok"]
    assert report["detail"] == "connected, not encrypted, without authentication"
    assert "pipelining" in report["extensions"]
    assert (mailbox.commands["MAIL"], mailbox.commands["QUIT"]) == (0, 1)


@pytest.mark.parametrize(
    ("rule", "stage", "code"),
    [
        (Rule("connect", "554 5.7.1 Your address is listed"), "greeting", "554 5.7.1"),
        (Rule("connect", HANG_UP), "connect", ""),
        (Rule("connect", delay=30), "connect", ""),
        (Rule("ehlo", "550 5.7.1 Not you"), "ehlo", "550 5.7.1"),
    ],
)
async def test_a_check_names_the_stage_that_failed(mailbox, rule, stage, code):
    mailbox.rules.append(rule)

    report = await check(settings(mailbox, profile={"connect_timeout": 0.3}))

    assert (report["ok"], report["stage"], report["code"]) == (False, stage, code)
    assert report["detail"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_a_check_of_a_port_where_nobody_listens_fails_at_once(host):
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    mailbox = Mailbox(port=server.sockets[0].getsockname()[1])
    server.close()
    await server.wait_closed()

    report = await check(settings(mailbox, host=host))

    assert (report["ok"], report["stage"]) == (False, "connect")


async def test_a_host_name_that_cannot_exist_is_an_error_and_no_crash():
    report = await check(settings(Mailbox(port=25), host="x" * 70 + ".example"))

    assert (report["ok"], report["stage"]) == (False, "connect")
