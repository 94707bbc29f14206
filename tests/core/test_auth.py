import asyncio
import base64
import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from app.core import jwks
from app.core.auth import SCOPES, Gatekeeper, cabinet_token, create_key
from app.core.errors import Unauthorized, Unavailable
from app.core.models import ApiKey

SECRET = "s" * 40  # of the test settings


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


async def code_of(client, path="/accounts", **headers):
    answer = await client.get(path, headers=headers)
    return answer.status_code, answer.json().get("code")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_credentials"),
        ("", "missing_credentials"),
        ("Bearer", "missing_credentials"),
        ("Bearer   ", "missing_credentials"),
        ("Basic YTpi", "missing_credentials"),
        ("Bearer vst_", "bad_key"),
        ("Bearer vst_abc_def", "bad_key"),
        ("Bearer vst_abcdefgh_" + "x" * 43, "bad_key"),
        ("Bearer vst_\u00e9bcdefg_x", "bad_key"),
        ("Bearer nonsense", "bad_token"),
        ("Bearer a.b.c", "bad_token"),
        ("Bearer " + "." * 5000, "bad_token"),
    ],
)
async def test_credentials_that_are_none_are_refused(as_role, authorization, code):
    client = await as_role(None)

    answer = await client.get("/accounts", headers={"Authorization": authorization.encode("latin-1")} if authorization is not None else {})

    assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_key_with_another_secret_is_refused_as_one_that_was_never_made(as_role, database):
    client = await as_role(None)
    async with database.transaction() as session:
        key, _ = await create_key(session, "n", "admin")

    assert await code_of(client, **bearer(key)) == (200, None)
    assert await code_of(client, **bearer(key[:-1] + ("x" if key[-1] != "x" else "y"))) == (401, "bad_key")
    assert await code_of(client, **bearer(key + "x")) == (401, "bad_key")
    assert await code_of(client, **bearer(key.upper())) == (401, "bad_token")


async def test_revoked_and_expired_keys_say_so(as_role, database):
    client = await as_role(None)
    async with database.transaction() as session:
        revoked, row = await create_key(session, "n", "admin")
        row.revoked_at = datetime.now(UTC)
        expired, _ = await create_key(session, "n", "admin", datetime.now(UTC) - timedelta(seconds=1))

    assert await code_of(client, **bearer(revoked)) == (401, "key_revoked")
    assert await code_of(client, **bearer(expired)) == (401, "key_expired")


async def test_key_that_expires_while_it_is_remembered_is_refused(settings, database):
    gatekeeper = Gatekeeper(settings, database)
    async with database.transaction() as session:
        key, row = await create_key(session, "n", "viewer", datetime.now(UTC) + timedelta(hours=1))
    assert (await gatekeeper.identify(f"Bearer {key}")).scopes == SCOPES["viewer"]

    gatekeeper.known[row.id].row.expires_at = datetime.now(UTC)

    with pytest.raises(Unauthorized):
        await gatekeeper.identify(f"Bearer {key}")


async def test_key_revoked_elsewhere_is_refused_after_two_seconds_at_most(settings, database):
    gatekeeper = Gatekeeper(settings, database)
    async with database.transaction() as session:
        key, row = await create_key(session, "n", "viewer")
    await gatekeeper.identify(f"Bearer {key}")
    async with database.transaction() as session:
        await session.execute(sa.update(ApiKey).values(revoked_at=datetime.now(UTC)))

    assert gatekeeper.known[row.id].until - time.monotonic() <= 2
    gatekeeper.known[row.id].until = time.monotonic()

    with pytest.raises(Unauthorized):
        await gatekeeper.identify(f"Bearer {key}")


async def test_use_of_a_key_is_noted(as_role, database):
    before = datetime.now(UTC)
    client = await as_role("viewer")

    await client.get("/accounts")

    async with database.transaction() as session:
        assert before <= await session.scalar(sa.select(ApiKey.last_used_at)) <= datetime.now(UTC)


@pytest.mark.parametrize("role", ["billing", "operator", "viewer", "admin"])
async def test_role_reaches_what_its_scopes_say(as_role, role):
    client = await as_role(role)
    asked = {
        "accounts:read": ("GET", "/accounts"),
        "accounts:write": ("DELETE", "/accounts/404"),
        "templates:read": ("GET", "/templates"),
        "messages:read": ("GET", "/messages"),
        "gateways:read": ("GET", "/gateways"),
        "gateways:write": ("DELETE", "/gateways/nobody"),
        "admin": ("GET", "/keys"),
    }

    refused = {scope for scope, (method, path) in asked.items() if (await client.request(method, path)).status_code == 403}

    assert refused == asked.keys() - SCOPES[role]


async def test_refusal_comes_before_the_body_is_read(as_role):
    read = []

    async def body():
        read.append(True)
        yield b"{}"

    nobody, viewer = await as_role(None), await as_role("viewer")

    assert (await nobody.put("/accounts/1", content=body())).status_code == 401
    assert (await viewer.put("/accounts/1", content=body(), headers={"Content-Type": "application/json"})).status_code == 403
    assert read == []


async def test_address_that_guesses_is_slowed_down_and_others_are_not(as_role, api):
    def client(peer):
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=api.app, client=(peer, 1)), base_url="http://vestnik/api/v1")

    async with client("192.0.2.1") as guesser, client("192.0.2.2") as other:
        answers = [(await guesser.get("/accounts", headers=bearer("vst_abcdefgh_x"))).status_code for _ in range(202)]
        calm = (await other.get("/accounts", headers=bearer("vst_abcdefgh_x"))).status_code

    assert answers[:200] == [401] * 200
    assert answers[200:] == [429, 429]
    assert calm == 401


def token(secret=SECRET, algorithm="HS256", headers=None, **claims):
    full = {"sub": "1", "aud": "vestnik", "exp": int(time.time()) + 60} | claims
    return jwt.encode({name: value for name, value in full.items() if value is not None}, secret, algorithm=algorithm, headers=headers)


def unsigned(header, claims):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part(header)}.{part(claims)}."


@pytest.mark.parametrize(
    ("made", "code"),
    [
        (token, None),
        (lambda: token(exp=int(time.time()) - 10), None),  # clocks differ a little
        (lambda: token(exp=int(time.time()) - 60), "token_expired"),
        (lambda: token(exp=None), "bad_token"),
        (lambda: token(aud=None), "bad_token"),
        (lambda: token(aud="other"), "bad_token"),
        (lambda: token(nbf=int(time.time()) + 600), "bad_token"),
        (lambda: token(sub=None), "bad_token"),
        (lambda: token(sub=""), "bad_token"),
        (lambda: token(sub="x" * 65), "bad_token"),
        (lambda: token(sub="a\0b"), "bad_token"),
        (lambda: token(secret="t" * 40), "bad_token"),
        (lambda: token(secret="s" * 64, algorithm="HS512"), "bad_token"),
        (lambda: token(algorithm="HS384", secret=SECRET + "x" * 8), "bad_token"),
        (lambda: unsigned({"alg": "none", "typ": "JWT"}, {"sub": "1", "aud": "vestnik", "exp": 2**31}), "bad_token"),
        (lambda: unsigned({"alg": "None"}, {"sub": "1", "aud": "vestnik", "exp": 2**31}), "bad_token"),
        (lambda: unsigned({"alg": "HS256"}, {"sub": "1", "aud": "vestnik", "exp": 2**31}), "bad_token"),
        (lambda: token() + "x", "bad_token"),
    ],
)
async def test_cabinet_token_is_believed_when_everything_about_it_is_right(as_role, api, made, code):
    await api.put("/accounts/1", json={})
    client = await as_role(None)

    assert await code_of(client, "/me", **bearer(made())) == ((200, None) if code is None else (401, code))


async def test_issuer_is_checked_where_it_is_set(settings, database):
    gatekeeper = Gatekeeper(settings.model_copy(update={"jwt_issuer": "https://idp.example"}), database)

    assert (await gatekeeper.identify(f"Bearer {token(iss='https://idp.example')}")).account == "1"
    for wrong in (token(), token(iss="https://other.example")):
        with pytest.raises(Unauthorized):
            await gatekeeper.identify(f"Bearer {wrong}")


async def test_account_may_stand_in_another_claim(settings, database):
    other = settings.model_copy(update={"jwt_account_claim": "account_number"})

    caller = await Gatekeeper(other, database).identify(f"Bearer {token(sub='uuid-of-a-login', account_number='100500')}")
    own = await Gatekeeper(other, database).identify(f"Bearer {cabinet_token(other, '100501')}")

    assert (caller.account, own.account) == ("100500", "100501")


class Keys:
    """An identity provider on loopback: what it lists can be changed, and it counts who asks."""

    def __init__(self):
        self.listed, self.asked, self.answer = {"keys": []}, 0, 200
        self.is_quick = threading.Event()
        self.is_quick.set()
        keys = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                keys.asked += 1
                keys.is_quick.wait(10)
                body = json.dumps(keys.listed).encode() if not isinstance(keys.listed, bytes) else keys.listed
                self.send_response(keys.answer)
                if keys.answer == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def list(self, *made, **more):
        self.listed = {"keys": [public | {"kid": kid} for kid, public in made] + more.get("strange", [])}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def public_of(private):
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return json.loads(algorithm.to_jwk(private.public_key()))


@pytest.fixture
def provider():
    keys = Keys()
    yield keys
    keys.close()


@pytest.fixture(scope="module")
def rsa_keys():
    return [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@pytest.fixture
def gatekeeper(settings, database, provider, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_EVERY", -1.0)
    monkeypatch.setattr(jwks, "SOON", -1.0)
    update = {"jwt_jwks_url": provider.url, "jwt_issuer": "idp", "jwt_hs256_secret": type(settings.jwt_hs256_secret)("")}
    return Gatekeeper(settings.model_copy(update=update), database)


def signed(private, kid, algorithm="RS256", **claims):
    return "Bearer " + token(private, algorithm, {"kid": kid}, iss="idp", **claims)


async def refused(gatekeeper, authorization):
    with pytest.raises(Unauthorized) as error:
        await gatekeeper.identify(authorization)
    return error.value.problem_code


async def test_token_of_a_provider_is_checked_with_its_published_keys(gatekeeper, provider, rsa_keys):
    curve = ec.generate_private_key(ec.SECP256R1())
    strange = [{"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}, {"kty": "unheard-of", "kid": "x"}, "not an object"]
    provider.list(("a", public_of(rsa_keys[0])), ("c", public_of(curve)), strange=strange)

    assert (await gatekeeper.identify(signed(rsa_keys[0], "a", sub="100500"))).account == "100500"
    assert (await gatekeeper.identify(signed(curve, "c", "ES256"))).account == "1"
    assert (await gatekeeper.identify(signed(rsa_keys[0], "a", "PS256"))).account == "1"
    assert provider.asked == 1

    assert await refused(gatekeeper, signed(rsa_keys[1], "a")) == "bad_token"
    assert await refused(gatekeeper, signed(rsa_keys[0], "c")) == "bad_token"
    assert await refused(gatekeeper, signed(rsa_keys[0], "a", exp=int(time.time()) - 60)) == "token_expired"
    assert await refused(gatekeeper, signed(rsa_keys[0], "a", aud="other")) == "bad_token"
    assert await refused(gatekeeper, "Bearer " + token(rsa_keys[0], "RS256", {"kid": "a"}, iss="other")) == "bad_token"
    assert await refused(gatekeeper, "Bearer " + token(rsa_keys[0], "RS256", iss="idp")) == "bad_token"


async def test_public_key_is_no_shared_secret(gatekeeper, provider, rsa_keys):
    provider.list(("a", public_of(rsa_keys[0])), strange=[{"kty": "oct", "kid": "shared", "k": base64.urlsafe_b64encode(b"s" * 40).decode()}])
    modulus = base64.urlsafe_b64decode(public_of(rsa_keys[0])["n"] + "==")

    for secret, kid in ((modulus, "a"), (SECRET, "a"), (SECRET, "shared")):
        assert await refused(gatekeeper, signed(secret, kid, "HS256")) == "bad_token"
    for alg in ("none", "HS256"):
        forged = unsigned({"alg": alg, "kid": "a"}, {"sub": "1", "aud": "vestnik", "iss": "idp", "exp": 2**31})
        assert await refused(gatekeeper, f"Bearer {forged}") == "bad_token"


async def test_new_key_is_fetched_when_a_token_names_it_and_the_old_one_goes(gatekeeper, provider, rsa_keys):
    provider.list(("a", public_of(rsa_keys[0])))
    await gatekeeper.identify(signed(rsa_keys[0], "a"))

    provider.list(("b", public_of(rsa_keys[1])))
    await gatekeeper.identify(signed(rsa_keys[1], "b"))

    assert await refused(gatekeeper, signed(rsa_keys[0], "a")) == "bad_token"


async def test_strangers_key_ids_are_no_load_for_the_provider(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "SOON", 5.0)
    provider.list(("a", public_of(rsa_keys[0])))
    gatekeeper = Gatekeeper(gatekeeper.settings, gatekeeper.database)
    await gatekeeper.identify(signed(rsa_keys[0], "a"))

    for n in range(20):
        assert await refused(gatekeeper, signed(rsa_keys[0], f"stranger-{n}")) == "bad_token"

    assert provider.asked == 1


@pytest.mark.parametrize("wrong", ["status", "redirect", "nonsense", "huge", "shape"])
async def test_provider_that_answers_nonsense_lets_nobody_in(gatekeeper, provider, rsa_keys, wrong):
    provider.list(("a", public_of(rsa_keys[0])))
    if wrong in {"status", "redirect"}:
        provider.answer = 500 if wrong == "status" else 302
    else:
        provider.listed = {"nonsense": b"<html>", "huge": b" " * (2 << 20) + json.dumps(provider.listed).encode(), "shape": b"[]"}[wrong]

    with pytest.raises(Unavailable):
        await gatekeeper.identify(signed(rsa_keys[0], "a"))


async def test_provider_that_goes_away_costs_nobody_his_sign_in_until_an_unknown_key_comes(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "LONGEST_AGE", -1.0)
    monkeypatch.setattr(jwks, "FETCH_EVERY", -1.0)
    provider.list(("a", public_of(rsa_keys[0])))
    await gatekeeper.identify(signed(rsa_keys[0], "a"))
    provider.answer = 500

    assert (await gatekeeper.identify(signed(rsa_keys[0], "a"))).account

    with pytest.raises(Unavailable):
        await gatekeeper.identify(signed(rsa_keys[1], "b"))


async def test_token_of_an_unknown_key_is_not_called_wrong_while_the_provider_is_away(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "SOON", 60.0)
    provider.answer = 500

    for _ in range(3):
        with pytest.raises(Unavailable):
            await gatekeeper.identify(signed(rsa_keys[0], "a"))

    assert provider.asked == 1


async def test_strangers_key_id_makes_nobody_wait_whose_key_is_known(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "LONGEST_AGE", -1.0)
    provider.list(("a", public_of(rsa_keys[0])))
    await gatekeeper.identify(signed(rsa_keys[0], "a"))
    provider.is_quick.clear()  # it takes calls, and does not answer
    stranger = asyncio.create_task(refused(gatekeeper, signed(rsa_keys[1], "stranger")))
    while provider.asked < 2:
        await asyncio.sleep(0.01)

    known = asyncio.create_task(gatekeeper.identify(signed(rsa_keys[0], "a")))
    done, _ = await asyncio.wait({stranger, known}, return_when=asyncio.FIRST_COMPLETED)

    provider.is_quick.set()
    assert done == {known}
    assert await stranger == "bad_token"


async def test_both_keys_are_honoured_while_the_provider_lists_both(gatekeeper, provider, rsa_keys):
    provider.list(("a", public_of(rsa_keys[0])))
    await gatekeeper.identify(signed(rsa_keys[0], "a"))
    provider.list(("a", public_of(rsa_keys[0])), ("b", public_of(rsa_keys[1])))

    for number, kid in enumerate(("b", "a", "b", "a")):
        assert (await gatekeeper.identify(signed(rsa_keys["ab".index(kid)], kid, sub=str(number)))).account == str(number)

    assert provider.asked == 2


async def test_a_hundred_tokens_of_a_new_key_at_once_fetch_it_once(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "SOON", 5.0)
    provider.list(("a", public_of(rsa_keys[0])))

    callers = await asyncio.gather(*(gatekeeper.identify(signed(rsa_keys[0], "a", sub=str(n))) for n in range(100)))

    assert [caller.account for caller in callers] == [str(n) for n in range(100)]
    assert provider.asked == 1


async def test_key_that_the_provider_withdrew_is_refused_once_the_set_is_old(gatekeeper, provider, rsa_keys, monkeypatch):
    monkeypatch.setattr(jwks, "LONGEST_AGE", -1.0)
    monkeypatch.setattr(jwks, "FETCH_EVERY", -1.0)
    provider.list(("a", public_of(rsa_keys[0])))
    await gatekeeper.identify(signed(rsa_keys[0], "a"))

    provider.list(("b", public_of(rsa_keys[1])))

    assert await refused(gatekeeper, signed(rsa_keys[0], "a")) == "bad_token"
