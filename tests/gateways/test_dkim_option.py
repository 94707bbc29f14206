"""The signing key of a mail gateway: it goes in, stays, and never comes out."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.core.secrets import SecretBox
from app.gateways.models import Gateway
from app.gateways.settings import smtp_settings
from tests.builders.messages import one, rows
from tests.gateways.test_api import MAIN, POST, put

ANY = {"if_match": "*"}


def a_key():
    private = Ed25519PrivateKey.generate()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


KEY, OTHER = a_key(), a_key()
DKIM = {"domain": "isp.example", "selector": "s2026", "private_key": KEY}
SHOWN = {name: value for name, value in DKIM.items() if name != "private_key"}


def secret_part(key):
    return key.splitlines()[1]


@pytest.fixture
def kept(database, settings):
    """What the mail station would get: password and key."""

    async def read():
        async with database.transaction() as session:
            read = smtp_settings(await session.get_one(Gateway, "main"), SecretBox(settings.secret_keys))
        return read.password.get_secret_value(), read.dkim and read.dkim.private_key.get_secret_value()

    return read


async def test_the_key_is_kept_beside_the_password_and_shown_to_nobody(database, api, kept):
    answer = await put(api, POST | {"password": "geheim", "dkim": DKIM})
    await put(api, POST | {"dkim": DKIM | {"private_key": OTHER}}, **ANY)

    assert (answer.status_code, answer.json()["has_secret"]) == (201, True)
    assert {name: answer.json()["dkim"][name] for name in SHOWN} == SHOWN
    assert await kept() == ("geheim", OTHER)
    told = [(await api.get(path)).text for path in ("/gateways/main", "/gateways", "/gateways/main/status")]
    told += [answer.text, *(str(row) for row in await rows(database, "SELECT changes FROM audit_record"))]
    told += [str(await one(database, "SELECT settings, secret FROM gateway"))]
    assert [text for text in told for key in (KEY, OTHER) if secret_part(key) in text] == []
    assert "dkim.private_key" in told[-2]


async def test_a_key_without_a_password_is_no_password(api, kept):
    answer = await put(api, POST | {"dkim": DKIM})

    assert answer.json()["has_secret"] is False
    assert (await put(api, POST | {"dkim": SHOWN, "host": "127.0.0.2"}, **ANY)).status_code == 200  # nothing that could be sent elsewhere
    assert await kept() == ("", KEY)


async def test_what_is_left_out_stays_and_what_was_read_can_be_put_back(api, kept):
    await put(api, POST | {"password": "geheim", "dkim": DKIM})

    again = await put(api, POST | {"dkim": SHOWN | {"selector": "s2027"}}, **ANY)

    assert again.json()["dkim"]["selector"] == "s2027"
    assert await kept() == ("geheim", KEY)
    state = ("name", "paused", "has_secret", "revision", "effective_profile")
    shown = {name: value for name, value in again.json().items() if name not in state}
    unchanged = await put(api, shown, **ANY)
    assert (unchanged.status_code, unchanged.headers["etag"]) == (200, again.headers["etag"])
    assert (await put(api, shown | {"dkim": shown["dkim"] | {"private_key": KEY}}, **ANY)).headers["etag"] == again.headers["etag"]


async def test_without_the_option_the_key_is_forgotten_and_the_password_stays(api, kept):
    await put(api, POST | {"password": "geheim", "dkim": DKIM})

    await put(api, POST | {"dkim": None}, **ANY)

    assert await kept() == ("geheim", None)
    refused = await put(api, POST | {"dkim": SHOWN}, **ANY)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"], refused.json()["errors"][0]["code"]) == (422, "/dkim/private_key", "secret_needed")


async def test_a_new_gateway_with_nothing_to_sign_with_is_refused_and_not_made(api):
    refused = await put(api, POST | {"dkim": SHOWN})

    assert refused.status_code == 422
    assert (await api.get("/gateways/main")).status_code == 404


async def test_a_password_that_is_cleared_leaves_the_key(api, kept):
    await put(api, POST | {"password": "geheim", "dkim": DKIM})

    answer = await put(api, POST | {"password": None, "dkim": SHOWN}, **ANY)

    assert answer.json()["has_secret"] is False
    assert await kept() == ("", KEY)


async def test_a_refused_key_is_not_repeated_in_the_answer(api):
    answer = await put(api, POST | {"dkim": DKIM | {"private_key": KEY.replace("PRIVATE KEY-----\n", "PRIVATE KEY-----\nAAAA", 1)}})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/dkim/private_key"
    assert secret_part(KEY) not in answer.text


async def test_a_gateway_of_another_kind_signs_nothing(api):
    assert (await put(api, MAIN | {"dkim": DKIM})).status_code == 422


async def test_the_form_has_the_option_with_its_words(api):
    form = (await api.get("/gateways/profile-schema", params={"locale": "ru"})).json()

    assert form["gateway"]["smtp"]["properties"]["dkim"]["x-schema"] == "dkim"
    assert form["dkim"]["properties"]["private_key"]["writeOnly"] is True
    assert form["dkim"]["properties"]["selector"]["title"] == "Селектор"
    assert form["smtp"]["properties"]["return_path"]["title"] == "Адрес для возвратов"
    groups = {group["name"] for group in form["groups"]}
    assert {field["x-group"] for field in form["dkim"]["properties"].values()} <= groups


@pytest.mark.parametrize(
    ("return_path", "is_taken"),
    [
        ("bounces@mail.isp.example", True),
        ("b@isp.example", True),
        ("a" * 20 + "@isp.example", True),
        ("a" * 21 + "@isp.example", False),
        ("bounces+x@isp.example", False),
        ("возвраты@isp.example", False),
        ("bounces", False),
        ("bounces@isp.example\r\nRCPT TO:<x@y.example>", False),
        ("<bounces@isp.example>", False),
    ],
)
async def test_a_return_path_leaves_room_for_the_message(api, return_path, is_taken):
    answer = await put(api, POST | {"profile": {"return_path": return_path}})

    assert answer.status_code == (201 if is_taken else 422)
