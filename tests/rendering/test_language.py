"""What an author is told: where a mistake is, in words of his own, in two languages; and what may turn out empty."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

import app.rendering
from app.catalogue.variables import variables_for
from app.rendering.differences import MOST_LINES, difference
from app.rendering.emptiness import may_be_empty
from app.rendering.engine import compile_part, parse, places_of
from app.rendering.problem_words import RUSSIAN, is_ours, russian
from app.rendering.proof import emptiness, proved

SPEAKING = [
    "questions",
    "guards",
    "arithmetic",
    "emptiness",
    "engine",
    "filters",
    "formats",
    "letters",
    "markup",
    "marks",
    "proof",
    "sms_words",
    "syntax",
    "syntax_words",
    "version_shapes",
]
PACKAGE = Path(app.rendering.__file__).parent


@pytest.mark.parametrize(
    ("source", "line", "column", "said"),
    [
        ("b {{ a b }}", 1, 8, "`b` does not belong here: `}}` was expected."),
        ("one\n\n{% if a %}\n{{ a }}\n", 3, 4, "`{% if %}` is not closed: add `{% endif %}`."),
        ("{% for a in b %}\n{% if a %}x{% endif %}", 1, 4, "`{% for %}` is not closed: add `{% endfor %}`."),
        ("{% if a %}\n  {% endfor %}", 2, 6, "`{% endfor %}` does not belong here: `{% if %}` is still open, close it with `{% endif %}`."),
        ("{% endif %}", 1, 4, "`{% endif %}` closes nothing: no `{% if %}` or `{% for %}` stands before it."),
        ("x {% unless a %}", 1, 6, "There is no tag `unless`. There are: if, elif, else, endif, for, endfor, set."),
        ("{{ }}", 1, 4, "Something is missing before `}}`: a name or a value."),
        ("{% %}", 1, 4, "After `{%` a tag is expected: if, elif, else, endif, for, endfor, set."),
        ("{{ a. }} tail", 1, 7, "After the dot a name is expected."),
        ("{{ a", 1, 4, "The template ends in the middle of a tag: `}}` is missing."),
        ("a\r\n{{ “b” }}", 2, 4, "The character `“` means nothing here: put texts into straight quotes, '...'."),
        ("{{ a|default('x) }}", 1, 14, "This text is not closed: add `'`."),
        ("a\n  {# b", 2, 3, "This comment is not closed: add `#}`."),
        ("{% if a = b %}{% endif %}", 1, 9, "`=` does not belong here: `%}` was expected."),
        ("{{ (a }}", 1, 5, "`}` does not belong here: `)` was expected."),
        ("{{ a|plural }}", 1, 6, "The filter `plural` does not take these arguments. It takes: one, few=None, many=None."),
        ("{{ a|replace('b') }}", 1, 6, "The filter `replace` does not take these arguments. It takes: old, new."),
        ("{{ a|join(sep=', ') }}", 1, 6, "The filter `join` does not take these arguments. It takes: separator='', attribute=None."),
        ("{{ a is divisibleby }}", 1, 9, "The test `divisibleby` does not take these arguments. It takes: number."),
        ("{% set a %}x{% endset %}", 1, 4, "A template may not use `{% set %}` with a block: write `{% set name = value %}`."),
        ("{{ {1: 2} }}", 1, 4, "A template may not use dictionaries."),
        ("include {% include 'x' %}", 1, 12, "A template may not use `include`."),
    ],
)
def test_author_is_told_what_to_change_and_where(source, line, column, said):
    (problem,) = parse(source, "text")

    assert (problem.line, problem.column, problem.detail) == (line, column, said)
    assert russian(said) != said


def test_equal_mistakes_of_a_line_are_told_apart():
    problems = parse("nofilter {{ a|nofilter }} and {{ b|nofilter }}\n{{ c|nofilter }}", "text")

    assert [(problem.line, problem.column) for problem in problems] == [(1, 15), (1, 36), (2, 6)]


def test_column_is_that_of_the_code_and_not_of_the_text_around_it():
    source = "amont: {% raw %}{{ amont }}{% endraw %}{# amont #}\r\n\r\n   {%- if true -%}\n amont {{ amont }}{% endif %}"
    version = SimpleNamespace(template_id=None, version=1, subject=None, text=source, html=None, mjml=None, layout=None, options={}, attachments=[])
    (fault,) = proved("payment.received", None, "sms", "ru", version).faults

    assert (fault.code, fault.line, fault.column) == ("undefined", 4, 11)
    assert fault.detail.startswith("line 4, column 11: `amont` is undefined here. There are: account, amount")
    assert fault.as_json()["detail_ru"].startswith("строка 4, столбец 11: Имени `amont` здесь нет. Есть: account, amount")


def test_many_mistakes_are_told_in_part():
    assert len(parse("{{ a|x }}" * 400, "sms")) == 50


@effort(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["{{", "}}", "{%", "%}", "{#", "#}", " if ", "x", "|", "\n", "\r\n", "'", ".", "{%- raw %}", "{% endraw -%}", "  "]), max_size=12
    ).map("".join)
)
def test_every_token_stands_where_it_is_said_to(source):
    places = places_of(source)
    lines = places.source.split("\n")

    assert all(lines[token.line - 1].startswith(token.value.split("\n")[0], token.column - 1) for token in places.tokens)


def sentences(module: str):
    """What a module says: of each raise, problem, yield and lambda the texts, with X for what is filled in."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text("utf-8"))
    saying = {"TemplateProblem", "PlacedError", "RenderFailed", "TooMuch", "FieldError", "TypeError", "ValueError", "ZeroDivisionError"}
    for node in ast.walk(tree):
        spoken = []
        if isinstance(node, ast.Call) and (getattr(node.func, "id", "") in saying or getattr(node.func, "attr", "") == "_refuse"):
            spoken = node.args
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
            spoken = node.value.elts[-1:]
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "detail":
            spoken = [node.value]
        elif isinstance(node, ast.Lambda):
            spoken = [node.body]
        elif isinstance(node, ast.Return) and module == "syntax_words":
            spoken = node.value.elts[-1:] if isinstance(node.value, ast.Tuple) else [node.value.body] if isinstance(node.value, ast.IfExp) else [node.value]
        for one in (part for said in spoken for part in ([said.left, said.right] if isinstance(said, ast.BinOp) else [said])):
            if isinstance(one, ast.Constant) and isinstance(one.value, str) and " " in one.value:
                yield one.value
            elif isinstance(one, ast.JoinedStr):
                said = "".join(part.value if isinstance(part, ast.Constant) else "X" for part in one.values)
                if " " in said.strip() and said != "X: X":
                    yield said


@pytest.mark.parametrize("module", SPEAKING)
def test_every_sentence_has_its_russian_one(module):
    said = set(sentences(module))

    assert said or module == "proof"
    assert [sentence for sentence in said if not is_ours(sentence)] == []


def test_each_sentence_fills_in_as_much_in_both_languages():
    assert {english for english, said in RUSSIAN.items() if english.count("{}") < said.count("{}")} == set()
    assert all(russian(english.replace("{}", "X")) != english for english in RUSSIAN)


def test_sentence_that_nobody_has_translated_stays():
    assert russian("Something quite different.") == "Something quite different."


@pytest.mark.parametrize(
    ("source", "places"),
    [
        ("{{ balance|money }}", [(1, 4)]),
        ("{{ amount }} {{ account.number }}", []),
        ("{% if balance is defined %}{{ balance }}{% endif %}", []),
        ("{% if balance %}{{ balance }}{% else %}{{ balance }}{% endif %}", [(1, 43)]),
        ("{% if not balance %}-{% else %}{{ balance }}{% endif %}", []),
        ("{% if balance is undefined %}-{% elif amount %}{{ balance }}{% endif %}", []),
        ("{% if balance is defined and balance > 0 %}{{ balance }}{% endif %}", []),
        ("{% if balance is defined or amount %}{{ balance }}{% endif %}", [(1, 42)]),
        ("{% if balance is none or balance > 0 %}x{% endif %}", []),
        ("{{ balance|default('-') }}{{ balance|d(method) }}", [(1, 41)]),
        ("{{ balance if balance else '-' }}{{ '-' if balance is not defined else balance }}", []),
        ("{{ data.balance }}", [(1, 9)]),
        ("{% if data.balance %}{{ balance }}{% endif %}", []),
        ("{% for event in events %}{{ event.amount }}{{ event.method }}{% endfor %}", [(1, 53)]),
        ("{% for one in events if one.method %}{{ one.method }}{% endfor %}", []),
        ("{% for balance in [1, 2] %}{{ balance }}{% endfor %}", []),
        ("{% set sum = balance %}{{ sum }}", [(1, 14), (1, 27)]),
        ("x\n{{ account.name }}\n{{ links.cabinet }}", [(2, 12), (3, 10)]),
        ("{% if amount %}{% if method %}{% endif %}{{ method }}{% endif %}", [(1, 22 + 23)]),
        ("{{ account.attributes.floor }}{{ account.attributes.floor|default('1') }}", [(1, 24)]),
        ("{% if account.attributes.floor is defined %}{{ account.attributes.floor }}{{ account.attributes.flat }}{% endif %}", [(1, 97)]),
        ("{% if account.name is none %}-{% else %}{{ account.name }}{% endif %}", []),
    ],
)
def test_what_may_be_empty_and_was_not_asked_for_is_a_warning(source, places):
    tree = parse(source, "text")
    found = list(may_be_empty(tree, places_of(source), variables_for("payment.received")))

    assert [problem.line for problem in found] == [line for line, _ in places]
    assert all(problem.code == "may_be_empty" and problem.detail.startswith("`") and russian(problem.detail) != problem.detail for problem in found)


def test_warnings_name_the_field_and_both_languages():
    (warning,) = emptiness("payment.received", None, "email", SimpleNamespace(subject="x", text="y", html=None, mjml="<p>\n {{ method }}</p>"))

    assert warning.as_json() == {
        "pointer": "/mjml",
        "code": "may_be_empty",
        "detail": "line 2, column 5: `method` may be empty here: ask `{% if method is defined %}` first, or write `method|default('...')`.",
        "detail_ru": "строка 2, столбец 5: `method` здесь может оказаться пустым: сначала спросите `{% if method is defined %}` или напишите `method|default('...')`.",
        "line": 2,
        "column": 5,
    }


def test_button_to_a_cabinet_that_there_may_not_be_is_a_warning_in_html_and_mjml():
    html = '<a href="{{ links.cabinet }}">Top up</a>'
    words = SimpleNamespace(subject="x", text="y", html=html, mjml='<mj-button href="{{ links.cabinet }}">Top up</mj-button>')

    assert [(one.pointer, one.detail.split("`")[1]) for one in emptiness("payment.received", None, "email", words)] == [
        ("/html", "links.cabinet"),
        ("/mjml", "links.cabinet"),
    ]
    words.html, words.mjml = f"{{% if links.cabinet is defined %}}{html}{{% endif %}}", None
    assert emptiness("payment.received", None, "email", words) == []


def test_operators_schema_says_what_may_be_empty():
    schema = {
        "properties": {"code": {"type": "string"}, "until": {"type": ["string", "null"]}, "gift": {"type": "object", "properties": {"name": {}}}},
        "required": ["code", "until", "gift"],
    }
    found = emptiness("promo.offer", schema, "sms", SimpleNamespace(text="{{ code }}{{ until }}{{ gift.name }}"))

    assert [problem.detail.split("`")[1] for problem in found] == ["until", "gift.name"]


def test_failure_while_it_is_written_says_in_which_part():
    version = SimpleNamespace(
        template_id=None, version=1, subject="x", text="y", html="<p>\n{{ account.name|money }}</p>", mjml=None, layout=None, options={}, attachments=[]
    )
    (fault,) = proved("payment.received", None, "email", "ru", version).faults

    assert (fault.pointer, fault.code, fault.line) == ("/html", "render_failed", 2)
    assert fault.detail_ru == "деньги пишутся из числа или из строки вида «123.45»"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{% if amount > 'x' %}{% endif %}", "values of different kinds cannot be compared"),
        ("{{ -account.name }}", "this cannot be done with a value of this kind"),
        ("{{ amount is divisibleby('x') }}", "whether it is odd, even or divisible is asked of a number"),
        ("{{ amount is divisibleby(0) }}", "division by zero"),
        ("{{ now|date('QQQQQQQQ') }}", "write a length (short, medium, long, full) or a pattern such as `d MMMM y`, `HH:mm`"),
        ("{{ now|date('{0.__class__}') }}", "write a length (short, medium, long, full) or a pattern such as `d MMMM y`, `HH:mm`"),
        ("{{ now|time('{0.__class__}') }}", "write a length (short, medium, long, full) or a pattern such as `d MMMM y`, `HH:mm`"),
        ("{{ range(99999999999999999999999) }}", "a range may have at most 1,000 numbers"),
        ("{{ range(0, 5, 0) }}", "a range is made of whole numbers, and its step is not 0"),
        ("{{ range(amount) }}", "a range is made of whole numbers, and its step is not 0"),
        ("{{ account.number[::0] }}", "a part of a text or a list is named by whole numbers, and its step is not 0"),
    ],
)
def test_no_words_of_a_programmer_come_through(render, source, said):
    from app.rendering.engine import RenderFailed

    with pytest.raises(RenderFailed) as failed:
        render(source)

    assert failed.value.detail == said
    assert russian(said) != said


def test_every_filter_is_taken_with_the_arguments_of_the_page(render):
    source = "{{ amount|money('USD') }}{{ now|date('d MMMM') }}{{ now|time }}{{ 2|plural('a', 'b', 'c') }}{{ [1, 2]|join(separator=', ') }}{{ 'x'|truncate(5, end='') }}"

    assert isinstance(render(source), str)


@pytest.mark.parametrize(
    ("before", "after", "diff"),
    [
        ("a\nb\nc", "a\nB\nc", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c"),
        (None, "a", "@@ -0,0 +1,1 @@\n+a"),
        ("a", None, "@@ -1,1 +0,0 @@\n-a"),
        ({}, {"translit": "always"}, '@@ -0,0 +1,3 @@\n+{\n+  "translit": "always"\n+}'),
        ("a", "a", ""),
        ("\n".join("abcdefgh"), "\n".join("abcdefgX"), "@@ -5,4 +5,4 @@\n e\n f\n g\n-h\n+X"),
        ("\n".join("abcdefghijklm"), "\n".join("aBcdefghijkLm"), "@@ -1,5 +1,5 @@\n a\n-b\n+B\n c\n d\n e\n@@ -9,5 +9,5 @@\n i\n j\n k\n-l\n+L\n m"),
    ],
)
def test_difference_reads_as_that_of_diff(before, after, diff):
    assert difference(before, after) == diff


def test_difference_of_texts_that_share_nothing_is_shown_as_a_whole():
    before, after = "\n".join(f"a{n}" for n in range(MOST_LINES + 1)), "\n".join(f"b{n}" for n in range(3))
    lines = difference(before, after).split("\n")

    assert lines[0] == f"@@ -1,{MOST_LINES + 1} +1,3 @@"
    assert (lines[1], lines[-1], len(lines)) == ("-a0", "+b2", MOST_LINES + 5)


def test_every_source_that_compiles_has_places_for_all_of_its_names():
    source = "{% for one in charges %}{{ one.title|upper }}{% endfor %}"
    assert not isinstance(compile_part(source, "text"), list)

    assert places_of(source).column(1, "one", ".", "title") == source.index("title") + 1
