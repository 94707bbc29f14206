"""Gateways over the API."""

from app.core.secrets import SecretBox
from tests.builders.messages import a_message, one, rows, run

MAIN = {"kind": "smpp", "host": "127.0.0.1", "port": 2775, "system_id": "isp", "password": "secret", "sender": "MyISP"}
POST = {"kind": "smtp", "host": "127.0.0.1", "port": 2525, "tls": "none", "from": "MyISP <noreply@isp.example>"}


async def put(api, given, name="main", **headers):
    return await api.put(f"/gateways/{name}", json=given, headers={key.replace("_", "-"): value for key, value in headers.items()})


async def secret(database, settings):
    sealed = (await one(database, "SELECT secret FROM gateway")).secret
    return sealed and SecretBox(settings.secret_keys).open(sealed)


async def test_new_gateway_is_created_with_its_defaults_and_its_password_is_encrypted(database, settings, api):
    answer = await put(api, MAIN)

    assert (answer.status_code, answer.headers["etag"]) == (201, '"1"')
    shown = answer.json()
    assert (shown["name"], shown["enabled"], shown["paused"], shown["has_secret"], shown["window"]) == ("main", True, False, True, 10)
    assert "secret" not in answer.text.replace("has_secret", "")
    assert "password" not in shown
    assert b"secret" not in (await one(database, "SELECT secret FROM gateway")).secret
    assert await secret(database, settings) == "secret"
    assert (await api.get("/gateways/main")).json() == shown


async def test_password_is_in_no_answer_and_in_no_audit(database, api):
    await put(api, MAIN | {"password": "hunter2-hunter2"})
    await put(api, MAIN | {"password": "hunter3-hunter3"}, if_match="*")

    told = [(await api.get("/gateways/main")).text, (await api.get("/gateways")).text, (await api.get("/gateways/main/status")).text]
    kept = [str(row) for row in await rows(database, "SELECT changes FROM audit_record")]
    assert "hunter" not in "".join(told + kept)
    assert "changed" in kept[-1]


async def test_change_needs_the_etag_that_was_read(api):
    await put(api, MAIN)

    assert (await put(api, MAIN | {"window": 20})).status_code == 428
    assert (await put(api, MAIN | {"window": 20}, if_match='"7"')).status_code == 412
    answer = await put(api, MAIN | {"window": 20}, if_match='"1"')
    assert (answer.status_code, answer.json()["window"], answer.headers["etag"]) == (200, 20, '"2"')
    assert (await put(api, MAIN | {"window": 30}, if_match='"1"')).status_code == 412


async def test_repetition_changes_nothing(database, api):
    given = {name: value for name, value in MAIN.items() if name != "password"}
    await put(api, given)

    answer = await put(api, given, if_match='"1"')

    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert len(await rows(database, "SELECT id FROM audit_record")) == 1


async def test_password_that_is_left_out_stays(database, settings, api):
    await put(api, MAIN)

    await put(api, {name: value for name, value in MAIN.items() if name != "password"} | {"window": 20}, if_match="*")

    assert await secret(database, settings) == "secret"


async def test_password_is_cleared_by_null(database, settings, api):
    for given, name in ((MAIN, "main"), (POST | {"username": "isp", "password": "secret"}, "post")):
        assert (await put(api, given, name)).status_code == 201

        answer = await put(api, given | {"password": None} | ({"username": ""} if name == "post" else {}), name, if_match="*")

        assert (answer.status_code, answer.json().get("has_secret")) == (200, False), answer.text


async def test_who_moves_a_gateway_elsewhere_has_to_know_its_password(database, api):
    await put(api, MAIN)
    given = {name: value for name, value in MAIN.items() if name != "password"}

    for change in (
        {"host": "10.0.0.1"},
        {"port": 2776},
        {"host": ["127.0.0.1", "10.0.0.1"]},
        {"host": "127.0.0.1:2776"},
        {"profile": {"tls": True}},
        {"profile": {"bind_mode": "tx_rx", "rx_host": "10.0.0.1"}},
        {"profile": {"bind_mode": "tx_rx", "rx_port": 2776}},
        {"profile": {"verify": False}},
        {"preset": "sinch"},
    ):
        answer = await put(api, given | change, if_match="*")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "secret_needed"), change
    assert (await put(api, MAIN | {"host": "10.0.0.1"}, if_match="*")).status_code == 200


async def test_who_takes_a_host_away_or_checks_more_needs_no_password(api):
    await put(api, MAIN | {"host": ["a.example", "b.example"], "profile": {"verify": False}})
    given = {name: value for name, value in MAIN.items() if name != "password"}

    for change in (
        {"host": ["b.example", "a.example"], "profile": {"verify": False}},
        {"host": "b.example", "profile": {"verify": False}},
        {"host": ["b.example:2775"]},
    ):
        answer = await put(api, given | change, if_match="*")
        assert (answer.status_code, answer.json()["has_secret"]) == (200, True), answer.text


async def test_mail_gateway_asks_for_its_password_when_it_would_check_less(api):
    given = POST | {"tls": "starttls", "username": "isp"}
    await put(api, given | {"password": "secret"}, "post")

    for change in ({"profile": {"verify": False}}, {"profile": {"ca_file": "/tmp/ca.pem"}}, {"tls": "none"}, {"host": "10.0.0.1"}, MAIN | {"password": ...}):
        changed = {name: value for name, value in (given | change).items() if value is not ...}
        if changed["kind"] == "smpp":
            changed = {name: value for name, value in MAIN.items() if name != "password"}
        answer = await put(api, changed, "post", if_match="*")
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "secret_needed"), change


async def test_unknown_key_of_a_profile_is_refused_with_the_known_ones(api):
    answer = await put(api, MAIN | {"profile": {"widow": 5}})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/profile"
    assert "enquire_interval" in answer.json()["errors"][0]["detail"]


async def test_values_out_of_range_and_unknown_fields_are_refused(api):
    for change, pointer in (
        ({"window": 0}, "/window"),
        ({"window": 1001}, "/window"),
        ({"binds": 33}, "/binds"),
        ({"rate_per_second": 0}, "/rate_per_second"),
        ({"port": 70000}, "/port"),
        ({"colour": "red"}, "/colour"),
        ({"kind": "fax"}, ""),
        ({"host": ""}, "/host"),
        ({"host": []}, "/host"),
        ({"host": ["a.example", "b c"]}, "/host"),
        ({"price_per_part": 1.5}, "/price_per_part"),
        ({"sender": "Банк"}, "/sender"),
        ({"profile": {"enquire_interval": -1}}, "/profile/enquire_interval"),
        ({"profile": {"allowed_senders": ["MyISP", "Банк"]}}, "/profile/allowed_senders/1"),
        ({"profile": {"tlvs": [{"tag": "0x1400"}]}}, "/profile/tlvs/0"),
    ):
        answer = await put(api, MAIN | change)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), change


async def test_name_is_lower_case_letters_digits_dot_hyphen_underscore(api):
    for name in ("Main", "-main", "a" * 65, "главный"):
        assert (await put(api, MAIN, name)).status_code == 422
    assert (await put(api, MAIN, "mts-main.2_a")).status_code == 201
    for name in ("presets", "profile-schema"):
        assert (await put(api, MAIN, name)).json()["errors"][0]["code"] == "name_taken"


async def test_pause_and_resume_are_remembered_and_repeating_them_is_harmless(database, api):
    await put(api, MAIN)

    for verb, paused in (("pause", True), ("pause", True), ("resume", False)):
        assert (await api.post(f"/gateways/main/{verb}")).json()["paused"] is paused

    actions = [row.action for row in await rows(database, "SELECT action FROM audit_record ORDER BY id")]
    assert actions == ["gateway.create", "gateway.pause", "gateway.resume"]
    assert (await one(database, "SELECT revision FROM gateway")).revision == 1


async def test_gateway_with_unfinished_messages_is_not_deleted(database, api):
    await put(api, MAIN)
    await a_message(database, state="held")

    answer = await api.delete("/gateways/main")

    assert (answer.status_code, answer.json()["code"]) == (409, "gateway_in_use")
    await run(database, "DELETE FROM outbox")
    assert (await api.delete("/gateways/main")).status_code == 204
    assert (await api.get("/gateways/main")).status_code == 404
    assert (await api.delete("/gateways/main")).status_code == 404


async def test_list_goes_on_page_by_page_by_name(api):
    for name in ("c", "a", "b"):
        await put(api, POST, name)

    first = (await api.get("/gateways", params={"limit": 2})).json()
    second = (await api.get("/gateways", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [item["name"] for item in first["items"] + second["items"]] == ["a", "b", "c"]
    assert second["next_cursor"] is None


async def test_operator_reads_gateways_and_changes_none(as_role):
    operator = await as_role("operator")

    assert (await operator.get("/gateways")).status_code == 200
    assert (await operator.get("/gateways/profile-schema")).json()["smpp"]["properties"]["enquire_interval"]
    assert (await put(operator, MAIN)).status_code == 403
    for path in ("pause", "resume", "check"):
        assert (await operator.post(f"/gateways/main/{path}")).status_code == 403


async def test_status_of_a_gateway_that_nobody_serves(database, api):
    await put(api, MAIN | {"binds": 2})
    for state in ("held", "queued", "queued"):
        await a_message(database, state=state)

    status = (await api.get("/gateways/main/status")).json()

    assert status["queue"] == {"held": 1, "queued": 2, "sending": 0}
    assert [(bind["slot"], bind["state"], bind["host"]) for bind in status["binds"]] == [(0, "down", "127.0.0.1:2775"), (1, "down", "127.0.0.1:2775")]
    await put(api, MAIN | {"enabled": False}, if_match="*")
    assert (await api.get("/gateways/main/status")).json()["binds"][0]["state"] == "stopped"


async def test_secret_that_no_key_opens_does_not_stop_the_list(database, settings, api):
    await put(api, MAIN)
    await run(database, "UPDATE gateway SET secret = '\\x00'")

    assert (await api.get("/gateways")).status_code == 200


async def test_gateway_of_an_earlier_version_is_shown_whole_and_sending_it_again_changes_nothing(database, api):
    given = {name: value for name, value in MAIN.items() if name != "password"}
    await put(api, given | {"profile": {"burst": 2}})
    await run(database, "UPDATE gateway SET settings = settings - 'preset' - 'price_per_part' - 'daily_parts' - 'daily_cost'")

    shown = (await api.get("/gateways/main")).json()

    assert (shown["preset"], shown["price_per_part"], shown["profile"]) == ("generic", None, {"burst": 2})
    assert (await put(api, given | {"profile": {"burst": 2}}, if_match='"1"')).headers["etag"] == '"1"'


async def test_several_hosts_are_shown_as_given_and_the_first_in_the_status(api):
    await put(api, MAIN | {"host": ["a.example:2776", "[2001:db8::1]"]})

    assert (await api.get("/gateways/main")).json()["host"] == ["a.example:2776", "[2001:db8::1]"]
    assert (await api.get("/gateways/main/status")).json()["binds"][0]["host"] == "a.example:2776"


async def test_schema_is_a_form_in_the_language_that_is_asked_for(api):
    async def title(key="bind_timeout", **headers):
        locale = {"locale": headers.pop("locale")} if "locale" in headers else {}
        schema = (await api.get("/gateways/profile-schema", params=locale, headers={name.replace("_", "-"): value for name, value in headers.items()})).json()
        return schema["smpp"]["properties"][key]["title"]

    assert await title(locale="en", accept_language="ru") == "Wait for the bind"
    assert await title(locale="ru", accept_language="en") == "Ожидание ответа на bind"
    assert await title(accept_language="de,en;q=0.5,ru;q=0.4") == "Wait for the bind"
    assert await title(accept_language="*;q=zzz,") == "Ожидание ответа на bind"
    assert (await api.get("/gateways/profile-schema", params={"locale": "de"})).status_code == 422


async def test_schema_has_what_a_form_is_drawn_from(api):
    schema = (await api.get("/gateways/profile-schema", params={"locale": "en"})).json()

    key = schema["smpp"]["properties"]["max_parts"]
    assert (key["type"], key["default"], key["minimum"], key["maximum"], key["x-group"]) == ("integer", 10, 1, 255, "texts")
    assert key["x-titles"] == {"ru": "Наибольшее число частей", "en": "Most parts"}
    assert key["x-help"]["ru"].endswith("отклоняется.")
    assert schema["smpp"]["properties"]["long_messages"]["enum"] == ["udh8", "udh16", "sar", "payload", "refuse"]
    assert list(schema["smpp"]["properties"])[:3] == ["tls", "verify", "ca"]
    assert schema["smpp"]["$defs"]["Tlv"]["properties"]["tag"]["title"] == "Tag"
    assert schema["smtp"]["properties"]["timeout"]["x-group"] == "submitting"
    assert schema["gateway"]["smpp"]["properties"]["password"]["writeOnly"] is True
    assert "jasmin" in schema["gateway"]["smpp"]["properties"]["preset"]["enum"]
    assert {field["x-group"] for kind in ("smpp", "smtp") for field in schema[kind]["properties"].values()} <= {group["name"] for group in schema["groups"]}
    assert schema["presets"][0]["name"] == "generic"
