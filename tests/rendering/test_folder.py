"""`vestnik template pull` and `push`: the words live in git, and come back as they were."""

import asyncio
import sys
from pathlib import Path

import httpx
import pytest

from app import cli
from app.commands import templates as commands
from app.commands.template_folder import read, write

PAYEE = {
    "name": "ООО Связь",
    "personal_account": "40702810900000000001",
    "bank_name": "Банк",
    "bic": "044525225",
    "correspondent_account": "30101810400000000225",
}
GERMAN = {"type": "payment.received", "channel": "sms", "locale": "de"}


@pytest.fixture
def vestnik(settings, monkeypatch, capsys):
    """Runs a command against the test's own database: exit code, lines of stdout, lines of stderr."""
    monkeypatch.setattr(commands, "connected_settings", lambda: settings)

    async def run(*words: str) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["vestnik", "template", *map(str, words)])

        def main() -> int:
            with pytest.raises(SystemExit) as end:
                cli.main()
            return int(end.value.code or 0)

        code = await asyncio.to_thread(main)
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    return run


async def versions(api) -> dict[str, list]:
    """Every template with all that was ever written in it."""
    found = {}
    for item in (await api.get("/templates", params={"limit": 500})).json()["items"]:
        rows = (await api.get(f"/templates/{item['id']}/versions")).json()["items"]
        found[f"{item['type']}/{item['channel']}.{item['locale']}"] = [item["name"], item["published_version"], item["revision"], len(rows)]
    return found


async def german(api: httpx.AsyncClient, *texts: str, publish: int | None = None) -> str:
    template = f"/templates/{(await api.post('/templates', json=GERMAN)).json()['id']}"
    for text in texts:
        assert (await api.post(f"{template}/versions", json={"text": text})).status_code == 201
    if publish:
        assert (await api.post(f"{template}/versions/{publish}/publish")).status_code == 200
    return template


async def test_payment_code_that_nobody_is_paid_by_is_found_before_anything_is_changed(api, vestnik, tmp_path):
    await vestnik("pull", tmp_path)
    before = await versions(api)
    settings = tmp_path / "balance.exhausting" / "email.en" / "template.toml"
    settings.write_text(settings.read_text("utf-8") + '\n[[attachments]]\nkind = "payment_qr"\n', "utf-8")
    body = settings.with_name("body.html")
    body.write_text(body.read_text("utf-8") + '<p><img src="cid:payment-qr.png" alt="Payment code" width="280"></p>\n', "utf-8")

    refused = await vestnik("push", tmp_path, "--publish")
    unchanged = await versions(api)
    await api.put("/brands/main", json={"is_default": True, "payee": PAYEE})
    taken = await vestnik("push", tmp_path, "--publish")

    assert (refused[0], unchanged) == (2, before)
    assert "has no payee" in refused[2][0]
    assert taken[0] == 0
    assert taken[1][:-1] == ["balance.exhausting/email.en: done: add version 2, publish version 2"]


async def test_what_was_pulled_and_is_pushed_changes_nothing(api, vestnik, tmp_path):
    letter = {
        "subject": 'Платёж: "500" \\ {{ amount }}',
        "mjml": "<mjml><mj-body></mj-body></mjml>\n",
        "text": "a\r\nb\n\n",
        "attachments": [{"kind": "calendar"}, {"kind": "payment_qr"}],
    }
    made = (await api.post("/templates", json=GERMAN | {"channel": "email", "name": 'Brief "1"\t\x7f'})).json()
    added = await api.post(f"/templates/{made['id']}/versions", json=letter)
    assert added.status_code == 201, added.text
    await german(api, "Danke {{ amount }}", "Noch nicht {{ amount }}", publish=1)
    await api.put("/brands/main", json={"is_default": True, "payee": PAYEE})
    before = await versions(api)

    pulled = await vestnik("pull", tmp_path)
    again = await vestnik("pull", tmp_path)
    pushed = await vestnik("push", tmp_path, "--publish")

    assert (pulled[0], again) == (0, (0, [f"templates {len(before)} files changed 0"], []))
    assert pushed[0] == 0, pushed[2]
    assert pushed[1] == [f"templates {len(before)} unchanged {len(before)}"], "what was only a draft is one still"
    assert await versions(api) == before
    assert (tmp_path / "payment.received/sms.de/text.txt").read_text() == "Danke {{ amount }}\n"


async def test_what_was_pulled_goes_into_an_empty_place(api, vestnik, tmp_path):
    template = await german(api, "Danke {{ amount }}", publish=1)
    await vestnik("pull", tmp_path)
    text = tmp_path / "payment.received/sms.de/text.txt"
    settings = tmp_path / "payment.received/sms.de/template.toml"
    text.write_text("Merci {{ amount }}\n")
    settings.write_text('name = "Zahlung"\n\n[options]\nmax_parts = 1\ntypography = true\n')
    other = tmp_path / "tariff.changed/sms.fr"
    other.mkdir(parents=True)
    (other / "text.txt").write_text("Tarif: {{ new_tariff }}\n")

    dry = await vestnik("push", tmp_path, "--dry-run", "--publish")
    untouched = await versions(api)
    pushed = await vestnik("push", tmp_path)
    again = await vestnik("push", tmp_path)
    published = await vestnik("push", tmp_path, "--publish")

    def of_two(said):
        return [line for line in said[1] if line.startswith(("payment.received/sms.de", "tariff.changed/sms.fr"))]

    assert of_two(dry) == [
        "payment.received/sms.de: would rename, add version 2, publish version 2",
        "tariff.changed/sms.fr: would create, add version 1, publish version 1",
    ]
    assert "tariff.changed/sms.fr" not in untouched
    assert of_two(pushed) == ["payment.received/sms.de: done: rename, add version 2", "tariff.changed/sms.fr: done: create, add version 1"]
    assert of_two(again) == ["payment.received/sms.de: unchanged; version 2 is not published", "tariff.changed/sms.fr: unchanged; version 1 is not published"]
    assert of_two(published) == ["payment.received/sms.de: done: publish version 2", "tariff.changed/sms.fr: done: publish version 1"]
    version = (await api.get(f"{template}/versions/2")).json()
    assert (version["text"], version["options"], version["published"]) == ("Merci {{ amount }}", {"typography": True, "max_parts": 1}, True)


async def test_mistake_names_its_file_line_and_column_and_nothing_is_pushed(api, vestnik, tmp_path):
    await vestnik("pull", tmp_path)
    before = await versions(api)
    sms = tmp_path / "payment.received/sms.ru"
    (sms / "text.txt").write_text("Пришло\n{{ amount|monney }}\n")
    (tmp_path / "tariff.changed/sms.ru/template.toml").write_text('name = "x"\n\n[options]\nmax_parts = 99\n')
    (tmp_path / "service.connected/sms.ru/text.txt").write_text("Другое {{ service.name }}\n")

    code, out, err = await vestnik("push", tmp_path)

    assert (code, out) == (2, [])
    assert [line.replace(str(tmp_path), "") for line in err[:1]] == [err[0].replace(str(tmp_path), "")]
    assert err[0].startswith(f"{sms}/text.txt:2:11: There is no filter `monney`.")
    assert err[1].startswith(f"{tmp_path}/tariff.changed/sms.ru/template.toml: options/max_parts: ")
    assert err[2] == f"vestnik: {tmp_path}: 2 mistakes, nothing was changed"
    assert await versions(api) == before


async def test_words_that_could_not_be_published_are_refused_before_they_are_pushed(api, vestnik, tmp_path):
    folder = tmp_path / "payment.received/sms.de"
    folder.mkdir(parents=True)
    (folder / "text.txt").write_text("Danke\n\n {{ amont }}\n")

    kept = await vestnik("push", tmp_path, "--publish")
    there = await versions(api)
    draft = await vestnik("push", tmp_path)

    assert (kept[0], kept[2][0].partition(" is undefined")[0]) == (2, f"{folder}/text.txt:3:5: `amont`")
    assert "payment.received/sms.de" not in there
    assert draft[0] == 0, "a draft may wait"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("payment.received/sms.de/template.toml", "name = \n", "template.toml:1:8: Invalid value"),
        (
            "payment.received/sms.de/template.toml",
            'colour = "red"\n',
            "template.toml: unknown `colour`: there are name, layout, published, options, attachments",
        ),
        ("payment.received/sms.de/template.toml", "name = 5\n", "template.toml: `name` is a text of at most 200 characters"),
        (
            "payment.received/sms.de/template.toml",
            "[options]\nregistered = 2026-01-01\n",
            "template.toml: texts, numbers, true and false alone stand here: put dates in quotes",
        ),
        ("payment.received/sms.de/text.txt", b"a\n\xff\n", "text.txt:2: this is no UTF-8"),
        ("payment.received/sms.de/text.txt", "a\nbc\0\n", "text.txt:2:3: a NUL character has no place in a text"),
        ("payment.received/sms.de/text.md", "x", "text.md: no part of a template: there are subject.txt, text.txt, body.html, body.mjml, template.toml"),
        ("payment.received/fax.de/text.txt", "x", "fax.de: expected a folder named <channel>.<locale>, e.g. sms.ru or email.en-GB"),
        ("payment.received/sms.de/template.toml", 'name = "x"\n', "sms.de: there is no text here: subject.txt, text.txt, body.html, body.mjml"),
        ("promo.offer/sms.de/text.txt", "x", "promo.offer: the catalogue has no such notification type"),
        ("payment received/sms.de/text.txt", "x", "payment received: no notification type has such a name"),
        ("payment.received/sms.de/body.html", "<p>x</p>", "text.txt: Add `text`: this channel needs it."),
        ("payment.received/sms.de/text.txt", "x" * 1_100_000, "text.txt: larger than any template may be"),
    ],
)
async def test_file_that_cannot_be_used_says_why(api, vestnik, tmp_path, file, content, said):
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    code, _, err = await vestnik("push", tmp_path)

    assert code == 2
    assert said in err[0]


async def test_archived_template_is_not_pulled_and_not_pushed_to(api, vestnik, tmp_path):
    template = await german(api, "Danke {{ amount }}", publish=1)
    await vestnik("pull", tmp_path)
    await api.post(f"{template}/archive")

    pulled = await vestnik("pull", tmp_path)
    pushed = await vestnik("push", tmp_path)

    folder = tmp_path / "payment.received/sms.de"
    assert pulled[2] == [f"{folder}: there is no such template: delete the folder, or push makes one of it"]
    assert pushed[2][0] == f"{folder}: this template is archived: restore it, or delete the folder"


async def test_part_that_the_version_has_not_is_taken_away_and_own_files_stay(tmp_path):
    place = ("payment.received", "email", "de")
    write(tmp_path, place, "x", {"subject": "s", "text": "t", "html": "<p>h</p>"})
    folder = tmp_path / "payment.received/email.de"
    (folder / ".note").write_text("mine")

    changed = write(tmp_path, place, "x", {"subject": "s", "mjml": "<mjml></mjml>"})

    assert changed == 3
    assert sorted(path.name for path in folder.iterdir()) == [".note", "body.mjml", "subject.txt", "template.toml"]
    (back,) = read(tmp_path).templates
    assert (back.place, back.name, back.version) == (place, "x", {"subject": "s", "mjml": "<mjml></mjml>"})


async def test_folder_that_is_not_there_is_bad_input(vestnik, tmp_path):
    code, _, err = await vestnik("push", tmp_path / "nowhere")

    assert (code, len(err)) == (2, 1)
    assert "there is no such folder" in err[0]


async def test_file_in_the_way_of_a_pull_is_told(api, vestnik, tmp_path):
    (tmp_path / "payment.received").write_text("a file")

    code, _, err = await vestnik("pull", tmp_path)

    assert (code, len(err)) == (1, 1)
    assert str(Path("payment.received")) in err[0]


async def test_somebody_who_changes_the_template_meanwhile_is_not_overwritten(api, vestnik, tmp_path, monkeypatch):
    template = await german(api, "Danke {{ amount }}", publish=1)
    await vestnik("pull", tmp_path)
    (tmp_path / "payment.received/sms.de/text.txt").write_text("Merci {{ amount }}\n")
    perform = commands.perform

    async def late(own, filed, steps):
        if filed.place[2] == "de":
            assert (await own.post(f"{template}/versions", json={"text": "Grazie {{ amount }}"})).status_code == 201
        await perform(own, filed, steps)

    monkeypatch.setattr(commands, "perform", late)
    code, _, err = await vestnik("push", tmp_path, "--publish")

    assert (code, "It was changed meanwhile" in err[-1]) == (1, True)
    assert (await api.get(template)).json()["published_version"] == 1


async def test_draft_of_a_folder_is_published_when_the_folder_says_so(api, vestnik, tmp_path):
    await german(api, "Danke {{ amount }}")
    await vestnik("pull", tmp_path)
    settings, text = tmp_path / "payment.received/sms.de/template.toml", tmp_path / "payment.received/sms.de/text.txt"
    assert "published = false" in settings.read_text("utf-8").splitlines()
    text.write_text("Merci {{ amount }}\n")

    added = await vestnik("push", tmp_path, "--publish")
    settings.write_text(settings.read_text("utf-8").replace("published = false\n", ""))
    published = await vestnik("push", tmp_path, "--publish")

    assert added[1][0] == "payment.received/sms.de: done: add version 2; not published: the folder says `published = false`"
    assert published[1][0] == "payment.received/sms.de: done: publish version 2"
    settings.write_text('published = "no"\n')
    assert (await vestnik("push", tmp_path))[0] == 2


async def test_link_that_leads_out_of_the_folder_is_not_followed(api, vestnik, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("root:x:0:0\n")
    words = tmp_path / "words"
    await vestnik("pull", words)
    before = await versions(api)
    text = words / "payment.received/sms.en/text.txt"
    text.unlink()
    text.symlink_to(secret)
    (words / "payment.received/sms.fr").symlink_to(tmp_path, target_is_directory=True)
    (words / "tariff.changed/sms.en/text.txt").rename(words / "tariff.changed/sms.en/.kept")
    (words / "tariff.changed/sms.en/text.txt").symlink_to(".kept")

    code, _, faults = await vestnik("push", words)

    assert (code, await versions(api)) == (2, before)
    assert [line for line in faults if "leads out of the folder" in line] == [
        f"{path}: a link that leads out of the folder is not followed" for path in (text, words / "payment.received/sms.fr")
    ]
    assert not any("tariff.changed" in line for line in faults)
