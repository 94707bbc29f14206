"""The HTML of letters: compiled once, with every mark in its place, and nothing from outside that is not escaped."""

import re
from html.parser import HTMLParser

import pytest

from app.rendering.brands import BUILT_IN, BrandSettings, Chosen
from app.rendering.compose import RenderFailed, Version
from app.rendering.defaults import templates
from app.rendering.letters import DEFAULT, MOST_WORK, Dressed, Layout, Undressed, built_in, dressed
from app.rendering.marks import LEXER
from app.rendering.markup import DEEPEST, MOST_ELEMENTS
from tests.rendering.test_compose import NOBODY

SECTION = "<mj-section><mj-column><mj-text>{}</mj-text></mj-column></mj-section>"
BODY_MARK = Layout("m", mjml="<mjml><mj-head><mj-title>{{ subject }}</mj-title></mj-head><mj-body>{{ content }}</mj-body></mjml>")
TEXT_MARK = Layout("t", mjml=f"<mjml><mj-body>{SECTION.format('{{ content }}')}</mj-body></mjml>")
PLAIN = Layout("p", html="<html><head><title>{{ subject }}</title></head><body><div>{{ content }}</div></body></html>")
LOOP = "{% for one in events %}<tr><td>{{ one.amount|money }}</td></tr>{% else %}<tr><td>-</td></tr>{% endfor %}"


def letter(
    html: str | None = None, *, mjml: str | None = None, layout: Layout | None = None, text: str | None = None, attachments: tuple = (), **more
) -> Version:
    layouts = {**built_in(), **({layout.name: layout} if layout else {})}
    name = layout.name if layout else None
    return Version(
        NOBODY, 1, "email", more.pop("locale", "ru"), more.pop("subject", "Тема"), text, html, mjml=mjml, layout=name, attachments=attachments, layouts=layouts
    )


def problems(made: Dressed | Undressed) -> list[tuple[str, int]]:
    assert isinstance(made, Undressed)
    return [(problem.code, problem.line) for problem in [*made.problems, *made.of_layout]]


def blocks(source: str) -> list[str]:
    """The blocks of a template, in their order."""
    found, inside = [], []
    for _, kind, value in LEXER.tokeniter(source, None):
        inside = [] if kind == "block_begin" else [*inside, value]
        if kind == "block_end":
            found.append("".join(inside[:-1]).strip())
    return found


class Elements(HTMLParser):
    """Every element with its attributes, and that each that opens closes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("br", "img", "meta", "hr", "col"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    @classmethod
    def of(cls, html: str) -> list[tuple[str, dict]]:
        reader = cls()
        reader.feed(html)
        reader.close()
        assert reader.open == []
        return reader.seen


LETTERS = [words for words in templates() if words["channel"] == "email"]


@pytest.mark.parametrize("words", LETTERS, ids=lambda words: f"{words['type']} {words['locale']}")
@pytest.mark.parametrize("layout", [built_in()[DEFAULT], BODY_MARK, TEXT_MARK, PLAIN], ids=lambda layout: layout.name)
def test_every_block_of_the_default_letters_comes_through_in_its_order_whatever_they_stand_in(words, layout):
    made = dressed(words["html"], None, layout)

    assert isinstance(made, Dressed)
    own, around = blocks(words["html"]), blocks(layout.source.replace("{{ content }}", "{% set here = 1 %}"))
    if "set here = 1" in around:
        place = around.index("set here = 1")
        around[place : place + 1] = own
    assert blocks(made.source) == [block.replace("locale[", "layout_locale[") for block in around]


@pytest.mark.parametrize("table", [f"<table>{LOOP}</table>", f"<table><thead><tr><th>A</th></tr></thead>\n{LOOP}\n<tfoot><tr><td>z</td></tr></tfoot></table>"])
@pytest.mark.parametrize("several", [0, 1, 3])
def test_rows_made_by_a_loop_stand_in_their_table_however_many_there_are(values, table, several):
    said = values() | {"events": [{"amount": "5.00"}] * several}

    html = letter(table, layout=PLAIN).compose(said).html

    assert len(re.findall("5,00", html)) == several
    names = [name for name, _ in Elements.of(html)]
    assert names.count("tbody") == 1


@pytest.mark.parametrize("layout", [BODY_MARK, TEXT_MARK, PLAIN, built_in()[DEFAULT]], ids=lambda layout: layout.name)
def test_words_in_mjml_go_into_any_layout_with_loops_around_its_elements(values, layout):
    mjml = "{% for one in events %}" + SECTION.format("{% if one.amount %}<b>{{ one.amount|money }}</b>{% endif %}") + "{% endfor %}"
    said = values() | {"events": [{"amount": "5.00"}, {"amount": "7.00"}]}

    html = letter(mjml=mjml, layout=layout).compose(said).html

    assert html.index("<b>5,00") < html.index("<b>7,00")
    assert "mj-" not in re.sub(r"mj-(column|outlook|full)", "", html)
    Elements.of(re.sub(r"<!--.*?-->", "", html, flags=re.DOTALL))


def test_a_whole_document_stands_by_itself_and_words_that_are_none_go_into_the_default_layout(values):
    whole = letter("<html><body><p>{{ amount|money }}</p></body></html>").compose(values()).html
    mjml = letter(mjml=f"<mjml><mj-body>{SECTION.format('{{ amount|money }}')}</mj-body></mjml>").compose(values()).html
    part = letter("<p>{{ amount|money }}</p>").compose(values()).html

    assert "Лицевой счёт" not in whole + mjml
    assert "Лицевой счёт 100500" in part
    assert all("500,00" in html for html in (whole, mjml, part))


def test_styles_are_put_on_their_elements_and_those_of_the_dark_and_of_the_narrow_stay_a_sheet(values):
    style = "<style>.sum{color:{{ brand.colours.primary }};font-weight:700} @media (prefers-color-scheme:dark){.sum{color:#fff!important}} .nobody{color:{{ account.nick }}}</style>"

    html = letter(f'{style}<p class="sum">1</p><b class="sum">2</b>', layout=PLAIN).compose(values()).html

    assert re.findall(r"color: ?(#1f5fd0)", html) == ["#1f5fd0"] * 2
    assert "prefers-color-scheme:dark" in html
    assert ".sum{color:#1f" not in html


def test_the_default_layout_knows_the_dark_and_the_phone():
    source = dressed("<p>x</p>", None, built_in()[DEFAULT]).source

    assert '<meta name="color-scheme" content="light dark">' in source
    assert "@media (prefers-color-scheme: dark)" in source
    assert "@media (max-width: 480px)" in source
    assert "max-width:600px" in source
    assert 'name="viewport"' in source
    assert not re.search(r'(?:src|href)="https?:|url\(|@import', source)


# --- what comes from outside ---

HOSTILE = [
    '"><script>alert(1)</script>',
    "x\" onclick='alert(1)",
    "</style></title><img src=x onerror=alert(1)>",
    "-->{{ 7 * 7 }}<!--",
    "{% raw %}",
    "a\r\nBcc: x@y",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_no_value_becomes_an_element_an_attribute_or_a_template(values, value):
    html = '<title>{{ account.name }}</title><p title={{ account.name }} lang="{{ account.name }}">{{ account.name }}<!-- {{ account.name }} --></p>'

    written = letter(html, layout=PLAIN, subject="{{ account.name }}").compose(values(name=value))

    [paragraph] = [attributes for name, attributes in Elements.of(written.html) if name == "p"]
    assert paragraph == dict.fromkeys(("title", "lang"), value.replace("\r\n", "\n"))
    assert {name for name, _ in Elements.of(written.html)} <= {"html", "head", "title", "body", "div", "p", "meta"}
    assert "49" not in written.html
    assert not re.search(r"[\r\n\x00]", written.subject)


@pytest.mark.parametrize(
    ("html", "code", "line"),
    [
        ("<p>\n<b {{ account.name }}>x</b></p>", "mark_in_tag", 2),
        ("<{{ account.name }}>", "mark_in_tag", 1),
        ("</{{ account.name }}>", "mark_in_tag", 1),
        ("<p {% if method %}class='a'{% endif %}>x</p>", "mark_in_tag", 1),
        ('<a onclick="go({{ account.number }})">x</a>', "mark_in_script", 1),
        ("<script>x</script>", "not_allowed", 1),
        ("<p>\n\n<iframe src='x'></iframe></p>", "not_allowed", 3),
        ("<form action='x'></form>", "not_allowed", 1),
        ('<link rel="stylesheet" href="file:///etc/passwd">', "not_allowed", 1),
        ('<meta http-equiv="Refresh" content="0">', "not_allowed", 1),
        ("<style>\n@IMPORT 'x.css';</style>", "remote_style", 1),
        ("<p>{% if method %}<b>{% endif %}x</p>", "block_torn", 1),
        ("<table>{% for n in range(2) %}<td>{{ n }}</td>{% endfor %}</table>", "block_torn", 1),
        ("<p>{% if method %}<b>{% else %}</b>{% endif %}x</p>", "block_torn", 1),
        ("{% if method %}<p title='{% endif %}'>", "block_torn", 1),
        ("<style>\n{% if method %}p{color:red}{% endif %}</style><p>x</p>", "mark_misplaced", 2),
        ("<p>{{ amount", "syntax", 1),
        ("<p>x<!-- never ends", "unclosed", 1),
        ("<div>" * (DEEPEST + 1), "too_complex", 1),
        ("<br>" * (MOST_ELEMENTS + 1), "too_complex", 1),
    ],
)
def test_what_a_letter_cannot_have_is_said_with_its_line(html, code, line):
    assert (code, line) in problems(dressed(html, None, PLAIN))


@pytest.mark.parametrize(
    ("mjml", "code"),
    [
        ('<mj-include path="/etc/passwd" />', "remote_style"),
        ('<mj-font name="x" href="https://fonts.example/x.css" />', "remote_style"),
        ("<mj-social><mj-social-element name='facebook'>x</mj-social-element></mj-social>", "remote_style"),
        ("<mj-sektion></mj-sektion>", "unknown_element"),
        ("<mj-section>", "not_mjml"),
        (SECTION.format("<p>a"), "unclosed"),
        (SECTION.format("<style><b></b></style>"), "not_allowed"),
        (SECTION.format("<![CDATA[<b>]]>"), "not_allowed"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]>", "not_allowed"),
        (SECTION.format('<a href="{{ links.cabinet }}" {{ amount }}>x</a>'), "mark_in_tag"),
    ],
)
def test_what_mjml_cannot_have_is_refused_before_it_is_compiled(mjml, code):
    made = dressed(None, mjml, BODY_MARK)

    assert code in [found for found, _ in problems(made)]


@pytest.mark.parametrize("tag", ["b", "p", "mj-wrapper", "div"])
def test_mjml_that_would_take_the_process_with_it_is_refused(tag):
    """The compiler calls itself for each of these, and has no stack for five thousand."""
    made = dressed(None, SECTION.format(f"<{tag}>" * 5_000 + f"</{tag}>" * 5_000), BODY_MARK)

    assert "too_complex" in [code for code, _ in problems(made)]


def test_a_sheet_that_would_be_copied_to_each_of_many_elements_is_refused():
    rules = "".join(f"b{{padding:{n}px}}" for n in range(3_000))

    made = dressed(f"<style>{rules}</style>" + "<b></b>" * 1_900, None, PLAIN)

    assert len(rules) * 1_900 > MOST_WORK
    assert problems(made) == [("too_complex", 1)]


def test_a_letter_that_grows_too_long_in_its_layout_is_refused():
    sections = SECTION.format("x") * 120

    assert len(sections) < 20_000
    assert problems(dressed(None, sections, BODY_MARK)) == [("too_long", 1)]


def test_no_sheet_is_read_from_a_file(tmp_path, values):
    sheet = tmp_path / "x.css"
    sheet.write_text("p { color: #123456 }")

    made = dressed(f'<p>x</p><!-- <link rel="stylesheet" href="file://{sheet}"> --><img src="https://isp.example/a.png">', None, PLAIN)

    assert isinstance(made, Dressed)
    assert "#123456" not in made.source


def test_what_looks_like_a_mark_only_after_compilation_is_a_text(values):
    html = letter("<p>&#123;{ account.number }} {% raw %}{{ account.number }}{% endraw %} {# nothing #}</p>", layout=PLAIN).compose(values()).html

    assert "<p>{{ account.number }} {{ account.number }} </p>" in html


# --- layouts ---


def test_a_layout_calls_the_letters_subject_so_whatever_an_event_calls_so(values):
    layout = Layout("s", html="<html><body><h1>{{ subject }}</h1>{% if subject is defined and locale == 'ru' %}да{% endif %}{{ content }}</body></html>")

    html = letter("<p>{{ subject }}</p>", layout=layout, subject="Письмо").compose(values("promo.offer", {"subject": "Телевизор"})).html

    assert "<h1>Письмо</h1>да<p>Телевизор</p>" in html


@pytest.mark.parametrize(
    "source", ["<p>x</p>", "<title>{{ content }}</title>", "{{ content }}{{ content }}", "<p title='{{ content }}'>x</p>", "<p>{{ contents }}</p>"]
)
def test_a_layout_has_its_content_once_between_its_elements(source):
    assert ("no_content", 1) in problems(dressed("<p>x</p>", None, Layout("x", html=f"<html><body>{source}</body></html>")))


def test_a_fault_is_told_by_the_line_of_its_author(values):
    html = "<p>a</p>\n<p>b</p>\n<p>{{ account.name|money }}</p>"
    bad_layout = Layout("bad", html="<html>\n<body>{{ account.name|money }}{{ content }}</body></html>")

    with pytest.raises(RenderFailed) as of_words:
        letter(html).compose(values())
    with pytest.raises(RenderFailed, match="In the layout `bad`") as of_layout:
        letter("<p>x</p>", layout=bad_layout).compose(values())

    assert of_words.value.line == 3
    assert of_layout.value.line is None


# --- brands, text, files ---

BRAND = Chosen(
    "tv",
    BrandSettings(
        title="Телеком & Ко",
        colours={"primary": "#00aa00"},
        logo="0192f0c1-2a3b-7c4d-8e5f-001122334455",
        links={"cabinet": "https://tv.example/my", "site": "https://tv.example", "support": "https://tv.example/help?a=1&b=2"},
        footer={"ru": "Лицензия № 1", "en": "Licence 1"},
        layout="p",
    ),
)


def test_a_letter_of_a_brand_has_its_looks_links_and_logo(values):
    html = "<p style='color:{{ brand.colours.primary }}'><a href='{{ links.support }}'>{{ brand.name }}</a>{{ brand.footer }}</p>"

    written = letter(html, locale="en").compose(values(), BRAND)

    assert (written.brand, written.attachments) == (
        "tv",
        [{"kind": "file", "id": "0192f0c1-2a3b-7c4d-8e5f-001122334455", "name": "brand-logo", "inline": True}],
    )
    assert '<img src="cid:brand-logo" alt="Телеком &amp; Ко"' in written.html
    assert 'href="https://tv.example/help?a=1&amp;b=2"' in written.html
    assert "Licence 1" in written.html
    assert "https://tv.example/my" in written.html
    assert "isp.example/cabinet" not in written.html


def test_words_that_name_no_layout_have_that_of_the_brand_and_others_their_own(values):
    known = {**built_in(), "p": PLAIN, "m": BODY_MARK}
    versions = [Version(NOBODY, 1, "email", "ru", "S", None, "<p>x</p>", layout=name, layouts=known) for name in (None, DEFAULT, "m")]

    plain, default, own = (version.compose(values(), BRAND).html for version in versions)

    assert plain == default
    assert "<body><div><p>x</p></div></body>" in plain
    assert "mj-column" in own
    assert "Лицевой счёт" in versions[0].compose(values(), BUILT_IN).html


def test_a_letter_without_a_text_has_that_of_its_html(values):
    written = letter("<p>Привет, <b>{{ account.name }}</b></p><ul><li>{{ amount|money }}</li></ul>", layout=PLAIN).compose(values())
    given = letter("<p>x</p>", layout=PLAIN, text="Свой").compose(values())
    picture = letter('<img src="cid:a">', layout=PLAIN, subject="Только тема").compose(values())

    assert written.text.startswith("Привет, Юлия Щеглова\n\n- 500,00")
    assert (given.text, picture.text) == ("Свой", "Только тема")


def test_files_that_are_made_later_are_made_of_the_data_of_the_words(values):
    specs = ({"kind": "file", "id": "x"},), ({"kind": "payment_qr"},)
    data = {"amount": "500.00"}

    uploaded, made = (letter("<p>x</p>", attachments=spec).compose(values(data=data)).attachments for spec in specs)

    assert uploaded == [{"kind": "file", "id": "x"}]
    assert made == [{"kind": "payment_qr"}, {"kind": "data", "data": data}]


def test_an_sms_of_a_brand_has_its_links(values):
    words = Version(NOBODY, 1, "sms", "ru", None, "{{ brand.name }} {{ links.cabinet }}", None)

    assert words.compose(values(), BRAND).text == "Телеком & Ко https://tv.example/my"
    assert words.compose(values()).text == "https://isp.example/cabinet"


def test_html_is_compiled_once_for_a_version_and_a_layout(values, monkeypatch):
    from app.rendering import letters

    made = []
    monkeypatch.setattr(letters, "dressed", lambda *words: made.append(words) or dressed(*words))
    version = letter("<p>{{ amount }}</p>", layout=PLAIN)

    for _ in range(5):
        version.compose(values())

    assert len(made) == 1
