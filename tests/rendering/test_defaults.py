"""The words that come with the service: good for ordinary values, whole for extreme ones."""

from decimal import Decimal
from html.parser import HTMLParser
from itertools import product
from types import SimpleNamespace
from uuid import UUID

import pytest

from app.catalogue.types import check_data, sample_of
from app.rendering.brands import BrandColours, BrandFooter, BrandSettings, Chosen
from app.rendering.compose import Composed, Version, variables
from app.rendering.defaults import dressed, templates
from app.rendering.models import TemplateVersion
from app.rendering.proof import proved
from app.sms.gsm import foreign_characters
from tests.rendering.conftest import NOW, account

DEFAULTS = list(templates())
SMS = [words for words in DEFAULTS if words["channel"] == "sms"]
LETTERS = [words for words in DEFAULTS if words["channel"] == "email"]
NOBODY = UUID(int=0)
LINKS = {"cabinet": "https://isp.example/cabinet?a=1&b=2", "unsubscribe": "https://isp.example/unsubscribe/t0ken"}
CURRENCIES = ["RUB", "USD", "EUR", "KZT", "BYN", "UAH", "JPY", "XXX"]
HOSTILE = "\"><img src=x onerror='alert(1)'> & <b>Рога</b> {{ account.number }}\r\nBcc: all@isp.example"
BUTTONS = ("balance.exhausting", "balance.threshold_reached", "charges.upcoming", "service.connected", "service.disconnected")
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def name(words: dict) -> str:
    return f"{words['type']}-{words['channel']}-{words['locale']}"


def compiled(words: dict) -> Version:
    parts = ("subject", "text", "html", "options", "mjml", "layout", "attachments")
    return Version(template_id=NOBODY, number=1, channel=words["channel"], locale=words["locale"], **{part: words[part] for part in parts})


VERSIONS = {name(words): compiled(words) for words in DEFAULTS}


def write(words: dict, values: dict) -> Composed:
    """What is sent with these default words."""
    return VERSIONS[name(words)].compose(values)


def told(words: dict, data: dict, *, links: dict | None = None, earlier: tuple = (), **changes: object) -> dict:
    """The variables of an event of this type, the data as intake would have stored them."""
    checked = [check_data(words["type"], one) for one in (data, *earlier)]
    assert not any(isinstance(one, list) for one in checked), checked
    stored = [one.data for one in checked]
    contact = SimpleNamespace(address="+79161234567", label="")
    return variables(account(**changes), contact, words["type"], NOW, stored[0], NOW, LINKS if links is None else links, earlier=tuple(stored[1:]))


def test_there_are_words_for_every_type_channel_and_language():
    assert len({(words["type"], words["channel"], words["locale"]) for words in DEFAULTS}) == 9 * 2 * 2


@pytest.mark.parametrize("words", DEFAULTS, ids=name)
def test_every_default_may_be_published_and_warns_of_nothing(words):
    parts = ("subject", "text", "html", "mjml", "layout", "options", "attachments")
    stored = TemplateVersion(template_id=NOBODY, version=1, created_by="test", **{part: words[part] for part in parts})

    proof = proved(words["type"], None, words["channel"], words["locale"], stored)
    assert (proof.faults, proof.warnings) == ([], [])


def test_a_look_that_is_not_there_is_no_letter():
    with pytest.raises(KeyError):
        dressed("@nosuchlook words@")


# What ordinary values go up to: sums of six digits, accounts of thirteen characters, names that an operator gives.
ORDINARY = {
    "balance": [None, "-999999.99", "0.00", "999999.99"],
    "amount": ["0.01", "999999.99"],
    "price": [None, "0.00", "999999.99"],
    "total": ["0.00", "999999.99"],
    "threshold": ["999999.99"],
    "recommended_payment": ["0.00", "999999.99"],
    "days_left": [0, 1, 2, 30, 365],
    "effective_on": [None, "2026-12-31"],
}
NAMES = {"ru": ["Домашний интернет 1000", "Безлимит " * 20], "en": ["Home Internet 1000", "Unlimited " * 20]}


@pytest.mark.parametrize("words", SMS, ids=name)
def test_an_sms_fits_one_part_with_the_longest_ordinary_values(words):
    sample, needed = sample_of(words["type"]), sample_of(words["type"], complete=False)
    longest = ORDINARY | {"new_tariff": NAMES[words["locale"]], "service": [{"code": "x", "name": title} for title in NAMES[words["locale"]]]}
    keys = [key for key in longest if key in sample]

    for chosen in product(*(longest[key] for key in keys)):
        data = {key: value for key, value in (sample | dict(zip(keys, chosen, strict=True))).items() if value is not None or key in needed}
        data = {key: needed[key] if value is None else value for key, value in data.items()}
        balance = Decimal(data.get("balance", "-999999.99"))
        sent = write(words, told(words, data, number="1234567890123", balance=balance, name="Юлия " * 20))

        assert (sent.encoding, sent.parts) == ("UCS2" if words["locale"] == "ru" else "GSM7", 1), sent.text


@pytest.mark.parametrize("words", SMS, ids=name)
def test_an_sms_fits_one_part_in_every_currency(words):
    for currency in CURRENCIES:
        sent = write(words, told(words, sample_of(words["type"]), currency=currency, name="Юлия"))

        assert (sent.encoding, sent.parts) == ("UCS2" if words["locale"] == "ru" else "GSM7", 1), sent.text
        assert currency == "RUB" or "руб" not in sent.text
        assert not foreign_characters(sent.text) or words["locale"] == "ru"


def test_these_are_the_sms_of_an_ordinary_day():
    said = {}
    for words in SMS:
        data = sample_of(words["type"])
        said[words["type"], words["locale"]] = write(words, told(words, data, balance=Decimal("42.00"), credit_limit=Decimal(0))).text

    assert said == {
        ("payment.received", "ru"): "Счёт 100500: +500,00 руб. Баланс 612,30 руб.",
        ("payment.received", "en"): "Account 100500: payment of RUB 500.00 received. Balance: RUB 612.30. Thank you!",
        ("service.connected", "ru"): "Счёт 100500: подключено «Internet 100», 300,00 руб.",
        ("service.connected", "en"): "Account 100500: Internet 100 is connected, price RUB 300.00.",
        ("service.disconnected", "ru"): "Счёт 100500: отключено «Internet 100»",
        ("service.disconnected", "en"): "Account 100500: Internet 100 is disconnected.",
        ("tariff.changed", "ru"): "Счёт 100500: тариф «Home 100» с 01.12.2026",
        ("tariff.changed", "en"): "Account 100500: your tariff is Home 100 from Dec 1, 2026, price RUB 600.00.",
        ("balance.threshold_reached", "ru"): "Счёт 100500: баланс 42,00 руб., пополните счёт",
        ("balance.threshold_reached", "en"): "Account 100500: your balance is RUB 42.00, the threshold is RUB 50.00. Please top up.",
        ("balance.exhausting", "ru"): "Счёт 100500: денег на 3 дня. Пополните на 100,00 руб.",
        ("balance.exhausting", "en"): "Account 100500: funds will last 3 days, until Dec 1, 2026. Please top up RUB 100.00.",
        ("balance.restored", "ru"): "Счёт 100500: баланс 512,30 руб., всё в порядке, спасибо",
        ("balance.restored", "en"): "Account 100500: thank you, your balance is RUB 512.30. Our reminder to top up is settled.",
        ("charges.upcoming", "ru"): "Счёт 100500: 01.12 спишется 600,00 руб., пополните счёт",
        ("charges.upcoming", "en"): "Account 100500: RUB 600.00 will be charged on Dec 1, 2026. Balance: RUB 42.00. Please top up.",
        ("contact.verification", "ru"): "Не сообщайте код никому: 482913. Действует 10 мин.",
        ("contact.verification", "en"): "Do not tell anybody this code: 482913. It confirms your number for notifications and is valid for 10 min.",
    }


def extremes(words: dict) -> list[tuple[str, dict, dict]]:
    """(what is extreme, the data, further things for `told`)."""
    code = words["type"]
    sample, needed = sample_of(code), sample_of(code, complete=False)
    made = [("nothing beyond what is needed", needed, {"name": "", "tariff": "", "links": {}})]
    for what, title in (("the longest names", "Ж" * 300), ("quotes, brackets and line breaks", HOSTILE)):
        given = {key: title for key in ("old_tariff", "new_tariff", "reason") if key in sample}
        given |= {key: title[:100] for key in ("method", "period", "code") if key in sample}
        given |= {"service": {"code": title[:100], "name": title}} if "service" in sample else {}
        given |= {"charges": [one | {"id": title[:100], "title": title} for one in sample["charges"]]} if "charges" in sample else {}
        made.append((what, sample | given, {"name": title, "tariff": title, "number": title[:64].replace("\r\n", " ")}))
    largest = {key: "999999999999.99" for key in ("amount", "price", "total", "threshold", "recommended_payment", "shortfall") if key in sample}
    for what, balance in (("a large debt", "-999999999999.99"), ("no money at all", "0.00"), ("a fortune", "999999999999.99")):
        zero = {key: "0.00" for key in largest if key != "amount"} if balance == "0.00" else largest
        data = sample | zero | {"balance": balance} | ({"days_left": 0} if "days_left" in sample else {})
        made += [(f"{what} in {currency}", data, {"balance": Decimal(balance), "credit_limit": Decimal(0), "currency": currency}) for currency in CURRENCIES]
    for many in (0, 100, 1000):
        if "charges" in sample:
            charges = [sample["charges"][0] | {"id": f"s{n}", "title": f"{HOSTILE} {n}"} for n in range(many)]
            made.append((f"{many} charges", sample | {"charges": charges}, {"balance": Decimal(-1)}))
    hostile = made[2][1]
    made += [(f"{many} events in one message", hostile, {"earlier": (needed, *[hostile] * (many - 2))}) for many in (2, 100, 300)]
    return made


class Page(HTMLParser):
    """Reads a letter, and refuses what does not close as it was opened."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in <{tag}>"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.said).split())


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_a_letter_stays_whole_with_extreme_data(words):
    structure = {tag for tag, _ in Page(write(words, told(words, sample_of(words["type"]))).html).tags}
    for what, data, further in extremes(words):
        sent = write(words, told(words, data, **further))

        assert 0 < len(sent.subject) <= 255, what
        assert sent.subject.isprintable(), what
        assert sent.text, what
        assert len(sent.html) < 100_000, f"{what}: readers of mail cut letters off at 102 kB"
        page = Page(sent.html)
        Page(sent.html.replace("<!--[if mso]>", "").replace("<![endif]-->", ""))  # as Outlook reads it
        assert {tag for tag, _ in page.tags} <= structure | {"table", "th", "tr", "td", "br", "b", "p", "a"}, f"{what}: data have become tags"
        attributes = {attribute for _, given in page.tags for attribute in given}
        assert not any(attribute.startswith("on") for attribute in attributes), f"{what}: data have become attributes"
        assert {given["href"] for tag, given in page.tags if tag == "a"} <= set(LINKS.values()), what
        assert "None" not in page.text, what
        assert "@" not in page.text.replace("all@isp.example", ""), f"{what}: a look was not filled in"


@pytest.mark.parametrize("words", SMS, ids=name)
def test_an_sms_stays_short_with_extreme_data(words):
    for what, data, further in extremes(words):
        sent = write(words, told(words, data, **further))

        assert sent.text, what
        assert sent.parts <= 4, f"{what}: {sent.text}"
        assert "None" not in sent.text, what


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_names_are_escaped_in_html_alone_and_strangers_are_told_no_names(words):
    sent = write(words, told(words, sample_of(words["type"]), name="<b>Рога & Ко</b>", number="777-1"))

    is_for_strangers = words["type"] == "contact.verification"  # who reads it is not known yet: it calls nobody by name
    assert ("<b>Рога & Ко</b>" in sent.text) is not is_for_strangers
    assert "<b>Рога" not in sent.html
    assert ("&lt;b&gt;Рога &amp; Ко" in sent.html) is not is_for_strangers
    assert ("777-1" in sent.html) is not is_for_strangers


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_a_letter_links_to_the_cabinet_and_to_the_refusal_and_loads_nothing(words):
    sent = write(words, told(words, sample_of(words["type"]), balance=Decimal(-1)))

    page = Page(sent.html)
    links = [given["href"] for tag, given in page.tags if tag == "a"]
    assert set(links) == set(LINKS.values())
    assert links.count(LINKS["cabinet"]) == 1 + (words["type"] in BUTTONS), "a button where there is something to do, and the line at the end"
    assert all(link in sent.text for link in LINKS.values())
    assert "img" not in {tag for tag, _ in page.tags}
    assert "http" not in sent.html.replace("https://isp.example/", ""), "nothing is loaded from elsewhere"
    assert "url(" not in sent.html
    assert page.tags[0] == ("html", {"lang": words["locale"]} | page.tags[0][1])


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_the_links_stand_apart_from_the_text_and_its_paragraphs_one_line_apart(words):
    for links in (LINKS, {"cabinet": LINKS["cabinet"]}, {"unsubscribe": LINKS["unsubscribe"]}, {}):
        for data in (sample_of(words["type"]), sample_of(words["type"], complete=False)):
            *_, text = write(words, told(words, data, links=links)).text.split("\n\n")

            assert [line.rpartition(": ")[2] for line in text.splitlines()] == [*links.values()] or not links
            assert "\n\n\n" not in write(words, told(words, data, links=links, balance=Decimal(-1))).text


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_a_letter_without_links_has_no_button(words):
    sent = write(words, told(words, sample_of(words["type"]), links={}, balance=Decimal(-1)))

    assert "a" not in {tag for tag, _ in Page(sent.html).tags}


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_a_brand_gives_a_letter_its_colours_logo_and_footer(words):
    settings = BrandSettings(
        colours=BrandColours(primary="#0a7d57", background="#101010"),
        logo=NOBODY,
        links={"site": "https://north.example/"},
        footer=BrandFooter(ru="ООО «Север» <i>", en="North & Co <i>"),
    )
    sent = VERSIONS[name(words)].compose(told(words, sample_of(words["type"]), balance=Decimal(-1)), Chosen("north", settings))

    page = Page(sent.html)
    assert ({"src": "cid:brand-logo", "alt": "north"}).items() <= next(given for tag, given in page.tags if tag == "img").items()
    assert settings.footer.model_dump()[words["locale"]] in page.text
    assert "https://north.example/" in [given["href"] for tag, given in page.tags if tag == "a"]
    assert "#101010" in sent.html
    assert ("#0a7d57" in sent.html) is (words["type"] in BUTTONS)


@pytest.mark.parametrize("words", LETTERS, ids=name)
def test_a_letter_is_made_for_the_dark_and_for_a_phone(words):
    html = write(words, told(words, sample_of(words["type"]))).html

    assert '<meta name="color-scheme" content="light dark">' in html
    assert "prefers-color-scheme: dark" in html
    assert "max-width: 480px" in html
    assert 'content="width=device-width, initial-scale=1"' in html
