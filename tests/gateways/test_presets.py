"""Presets: named profiles to start from."""

import re

import pytest
from pydantic import ValidationError

from app.gateways import preset as preset_module
from app.gateways.preset import Preset, presets
from app.gateways.profile import Profile
from app.gateways.settings import stored
from app.gateways.smpp import SmppSettings
from tests.builders.messages import one, run

MAIN = {"kind": "smpp", "host": "127.0.0.1", "port": 2775, "system_id": "isp", "password": "secret", "sender": "MyISP"}
PUBLISHED = {"generic", "kannel-smppbox", "jasmin", "smpp33-hex", "smsc-ru", "sms-aero", "devino", "rapporto", "qtelecom", "mts-marketolog", "webcom"}
PUBLISHED |= {"infobip", "sinch", "twilio", "clicksend", "inmobile", "openmarket", "route-mobile", "hollatags", "ycloud"}


@pytest.fixture
def another_preset(monkeypatch):
    """A preset that is made up, until a test corrects it as a later version would."""

    def make(**profile):
        said = {"ru": "", "en": ""}
        found = {**presets(), "made-up": Preset(name="made-up", title=said, notes=said, sources=[], profile=profile)}
        monkeypatch.setattr("app.gateways.smpp.presets", lambda: found)
        monkeypatch.setattr(preset_module, "presets", lambda: found)

    return make


def settings(**given):
    return SmppSettings.model_validate(MAIN | given)


def test_names_that_gateways_may_hold_stay():
    assert presets().keys() >= PUBLISHED
    assert next(iter(presets())) == "generic"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) for name in presets())


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_profile_and_says_where_it_comes_from(name):
    preset = presets()[name]

    assert Profile.model_validate(preset.profile) == settings(preset=name).profile
    assert all((preset.title.ru, preset.title.en, preset.notes.ru, preset.notes.en))
    assert bool(preset.sources) is (name != "generic")


@pytest.mark.parametrize("name", presets())
async def test_every_preset_is_taken_by_put_and_its_keys_hold(api, name):
    answer = await api.put("/gateways/main", json=MAIN | {"preset": name})

    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert (shown["preset"], shown["profile"]) == (name, {})
    assert shown["effective_profile"] == Profile.model_validate(presets()[name].profile).model_dump(mode="json")


async def test_presets_are_listed_with_their_titles_in_both_languages(api):
    listed = (await api.get("/gateways/presets")).json()["items"]

    assert [item["name"] for item in listed] == list(presets())
    jasmin = next(item for item in listed if item["name"] == "jasmin")
    assert jasmin["title"].keys() == {"ru", "en"}
    assert jasmin["profile"]["msgid_fold"] == ["case", "hyphens"]


def test_what_is_given_goes_over_the_preset_and_the_preset_over_the_defaults():
    resolved = settings(preset="smpp33-hex", profile={"msgid_rcpt_base": "hex", "burst": 5}).profile

    assert (resolved.msgid_resp_base, resolved.msgid_rcpt_base, resolved.burst, resolved.max_parts) == ("hex", "hex", 5, 10)
    assert resolved.interface_version == 0x33


def test_tables_are_joined_entry_by_entry_and_lists_replaced():
    resolved = settings(preset="openmarket", profile={"status_overrides": {"1042": "TEMP", "0x999": "PERM"}}).profile

    assert (resolved.status_overrides["0x00000412"], resolved.status_overrides["0x00000999"], resolved.status_overrides["0x00000406"]) == (
        "TEMP",
        "PERM",
        "BRK",
    )
    assert settings(preset="jasmin", profile={"msgid_fold": []}).profile.msgid_fold == []


def test_only_what_was_given_is_stored():
    given = {"status_overrides": {"1042": "TEMP"}, "burst": 5}

    kept = stored(settings(preset="openmarket", profile=given))

    assert (kept["preset"], kept["profile"]) == ("openmarket", given)
    assert SmppSettings.model_validate(kept).profile == settings(preset="openmarket", profile=given).profile


def test_keys_that_fit_only_together_with_the_preset_are_taken():
    assert settings(preset="devino", profile={"source_npi": 0}).profile.source_npi == 0
    with pytest.raises(ValidationError, match="source_ton and source_npi"):
        settings(profile={"source_npi": 0})


def test_correction_of_a_preset_is_taken_over_by_the_gateways_that_have_it(another_preset):
    another_preset(response_timeout=10)
    kept = stored(settings(preset="made-up", profile={"burst": 2}))

    another_preset(response_timeout=20, burst=9)

    later = SmppSettings.model_validate(kept).profile
    assert (later.response_timeout, later.burst) == (20, 2)


async def test_unknown_preset_is_refused_with_the_known_ones(api):
    answer = await api.put("/gateways/main", json=MAIN | {"preset": "kanel"})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/preset")
    assert "kannel-smppbox" in answer.json()["errors"][0]["detail"]


async def test_change_of_preset_is_a_new_revision_and_the_profile_stays_as_given(api):
    await api.put("/gateways/main", json=MAIN | {"profile": {"burst": 3}})

    answer = await api.put("/gateways/main", json=MAIN | {"preset": "jasmin", "profile": {"burst": 3}}, headers={"If-Match": '"1"'})

    assert (answer.headers["etag"], answer.json()["profile"]) == ('"2"', {"burst": 3})


async def test_gateway_whose_preset_is_gone_is_still_shown(database, api):
    await api.put("/gateways/main", json=MAIN)
    await run(database, """UPDATE gateway SET settings = settings || '{"preset": "no-more"}'""")

    shown = await api.get("/gateways/main")

    assert (shown.status_code, shown.json()["effective_profile"], shown.json()["preset"]) == (200, None, "no-more")
    assert (await api.get("/gateways")).status_code == 200
    repaired = await api.put("/gateways/main", json=MAIN, headers={"If-Match": "*"})
    assert (repaired.status_code, (await one(database, "SELECT settings FROM gateway")).settings["preset"]) == (200, "generic")
