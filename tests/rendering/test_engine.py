"""The sandbox: what a template may do, and what it cannot do however it tries."""

import tracemalloc
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from app.rendering import formats
from app.rendering.engine import LIMITS, RenderFailed, compile_part
from app.rendering.filters import FILTERS
from app.rendering.formats import style_of

MEGABYTE = 1 << 20
CHARGES = [{"title": "Home 100", "amount": Decimal("600.00")}, {"title": "TV", "amount": Decimal("90.50")}]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ account.number }} {{ contact.label }} {{ event.type }}", "100500 work payment.received"),
        ("{{ account.available }} {{ account.attributes.segment }}", "712.30 home"),
        ("{{ amount }} {{ data.amount }} {{ data['amount'] }}", "500.00 500.00 500.00"),
        ("{{ now.hour }}:00 {{ event.time|date('y-MM-dd') }}", "12:00 2026-11-23"),
        ("{{ method }}|{{ method|default('cash') }}|{{ 'card' if method is defined }}", "|cash|"),
        ("{{ promo|default('none') }}{% if promo is defined %}{{ promo }}{% endif %}", "none"),
        ("{% for charge in charges %}{{ loop.index }}. {{ charge.title }}\n{% endfor %}", "1. Home 100\n2. TV"),
        ("{% for charge in charges if charge.amount > 100 %}{{ charge.title }}{% else %}none{% endfor %}", "Home 100"),
        ("{{ charges|sum('amount') }} {{ charges|join(', ', 'title') }} {{ charges|length }}", "690.50 Home 100, TV 2"),
        ("{{ charges[0].title }} {{ (charges|last).title }} {{ account.number[:3] }}", "Home 100 TV 100"),
        ("{% for n in range(2, 8, 3) %}{{ n }} {% endfor %}", "2 5"),
        ("{% set total = amount + 1 %}{{ total * 2 }} {{ 7 // 2 }} {{ 7 % 2 }} {{ 10 / 4 }}", "1002.00 3 1 2.5"),
        ("{{ amount * 1.1 }} {{ amount|round }} {{ 2.5|round }} {{ -amount|abs }}", "550.000 500 3 500.00"),
        ("{{ 'a' ~ 1 ~ amount }} {{ 'a' + 'b' }}", "a1500.00 ab"),
        ("{{ account.name|upper }} {{ account.name|truncate(8) }} {{ 'a-b'|replace('-', '+') }}", "ЮЛИЯ ЩЕГЛОВА Юлия... a+b"),
        ("{% if amount >= 500 and 'x' not in account.number %}yes{% endif %}", "yes"),
        ("{# a comment #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ [3, 1, 2]|max }} {{ 4 is even }} {{ 9 is divisibleby(3) }}", "3 True True"),
        ("a\r\n\x1bb\x07", "a\nb"),
        (
            "{{ 3 is odd }} {{ -3 is odd }} {{ 4 is odd }} {{ 2.5 is even }} {{ amount is even }} {{ amount is divisibleby(2.5) }}",
            "True True False False True True",
        ),
        ("{{ 2 is in [1, 2] }} {{ 'b' is in 'abc' }} {{ 'number' is in account }}", "True True True"),
        ("{{ account.attributes.floor }}{{ account.attributes['floor'] }}|{{ account.attributes.floor|default('1') }}", "|1"),
        ("{{ 'x' if account.attributes.floor is defined }}{{ account.attributes.floor|money }}{{ account.attributes.segment|upper }}", "HOME"),
        ("{{ account[charges] is defined }}{{ account.number[:3] }}{{ account.number[::-1] }}", "False100005001"),
    ],
)
def test_what_a_template_may_say(render, source, text):
    assert render(source, charges=CHARGES) == text


def test_html_is_escaped_and_text_is_not(render):
    source = "{{ name }} {{ '<i>' ~ name }} {{ name|e }}"

    assert render(source, "html", name="<b>&") == "&lt;b&gt;&amp; &lt;i&gt;&lt;b&gt;&amp; &lt;b&gt;&amp;"
    assert render("{{ name }}", "text", name="<b>&") == "<b>&"


@pytest.mark.parametrize("given", ["", None])
def test_absent_text_is_nothing_however_it_is_asked_for(render, values, given):
    account = values()["account"] | {"name": given}
    source = "{{ account.name|default('friend') }}{{ account.name is defined }}{{ account.name is undefined }}{{ account.name is none }}{{ account.name }}"

    assert render(source, account=account) == "friendFalseTrueTrue"


@pytest.mark.parametrize("kind", ["sms", "subject", "text", "html"])
def test_marks_that_nobody_sees_are_left_out_of_values_and_joiners_stay(render, kind):
    hidden = "".join(map(chr, (0x061C, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF)))

    assert render("\u200eОт {{ name }}, {{ 'b' ~ name }}", kind, name=f"a{hidden}я👨\u200d👩\u200c") == "\u200eОт aя👨\u200d👩\u200c, baя👨\u200d👩\u200c"
    assert render("{{ name|e }}", "html", name=f"<{hidden}я>") == "&lt;я&gt;"


@pytest.mark.parametrize(
    "source",
    [
        "{% for n in range(900) %}{% if name is in(many) %}{% endif %}{% endfor %}",
        "{% for n in range(900) %}{% if account[many] is defined %}{% endif %}{{ many[:] }}{% endfor %}",
        "{% for n in range(900) %}{% set a = name[:] %}{% endfor %}",
        "{% for n in range(900) %}{% set a = many + many %}{% endfor %}",
        "{% for n in range(900) %}{% if deep == deeper %}{% endif %}{% endfor %}",
        "{% for n in range(900) %}{% if 'x' in name %}{% endif %}{% endfor %}",
        "{% set a = lists|max %}",
        "{% for n in range(900) if " + "1 and " * 40 + "1 %}{% endfor %}",
        "{% for n in range(900) %}{{ 1|money('A' ~ 'BCDEFGHIJKLMNOPQRSTUVWXYZ'[n % 25] ~ 'BCDEFGHIJKLMNOPQRSTUVWXYZ'[n // 25 % 25]) }}{% endfor %}",
    ],
)
def test_work_on_large_data_is_paid_for(render, source):
    many = [str(number) for number in range(50_000)]
    deep, deeper = ([[], [list(range(300)) for _ in range(200)]] for _ in range(2))

    with pytest.raises(RenderFailed, match=r"at most|takes too long|beyond|single values"):
        render(source, many=many, name="y" * 1_000_000, deep=deep, deeper=deeper, lists=[[1], [2]])


@pytest.mark.parametrize(
    "source",
    ["{% for n in range(900) %}{% set a = n|int %}{% endfor %}", "{{ 1 }}{{ n }}" * 100, "{% for n in range(99) %}{{ '+79161234567'|phone }}{% endfor %}"],
)
def test_rendering_that_was_counted_too_low_is_ended_by_the_clock(render, monkeypatch, source):
    clock = iter(range(1000))
    for module in ("engine", "filters"):
        monkeypatch.setattr(f"app.rendering.{module}.thread_time", lambda: next(clock))

    with pytest.raises(RenderFailed, match="more than a second"):
        render(source, n=1)


def test_what_is_remembered_of_phones_is_short(render):
    formats.phone.cache_clear()

    assert render("{{ ('1' ~ name)|phone }}", name="2" * 100) == "1" + "2" * 100
    assert formats.phone.cache_info().currsize == 0


def test_a_subject_is_one_line_whatever_the_data_hold(render):
    assert render("Hello\n{{ name }}", "subject", name="a\r\nBcc: all@example.org\x00") == "Hello a Bcc: all@example.org"


BOMBS = [
    # Those of the measured list: each took 100 MB to 1.2 GB in Jinja's own sandbox.
    '{{ "A" * 300000000 }}',
    '{{ "{:>300000000}".format(1) }}',
    '{{ "%300000000d"|format(1) }}',
    '{{ "%300000000d" % 1 }}',
    '{{ "x"|center(300000000) }}',
    '{{ (["A" * 1000] * 100000)|join }}',
    "{{ [1, 2]|tojson(indent=100000000) }}",
    # Doubling, by every operation that joins.
    '{% set a = "xxxxxxxxxx" %}' + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    '{% set a = "xxxxxxxxxx" %}' + "{% set a = a + a %}" * 40 + "{{ a }}",
    '{% set a = "xxxxxxxxxx" %}' + "{% set a = a|replace('x', 'xxxxxxxxxx') %}" * 10 + "{{ a }}",
    '{% set a = "xxxxxxxxxx" %}' + "{% set a = [a, a, a, a]|join(a) %}" * 20 + "{{ a }}",
    "{% set a = [1, 2] %}" + "{% set a = a + a %}" * 40 + "{{ a|length }}",
    "{% set a = 1 %}{% set b = 2 %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
    # Numbers.
    "{{ 9 ** 9 ** 9 }}",
    "{% set a = 99999999 %}" + "{% set a = a * a %}" * 30 + "{{ a }}",
    "{{ " + "9" * 5000 + " }}",
    "{{ (amount * 1000000000000000)|money }}",
    "{{ 1e999 }}",
    # Loops.
    "{% for a in range(100000000) %}x{% endfor %}",
    "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% for a in range(1000) %}{% for b in range(1000) %}x{% endfor %}{% endfor %}",
    "{% for a in range(900) %}" + "{{ account.name|translit|upper }}" * 60 + "{% endfor %}",
    "{% for a in range(100) %}{% for b in range(100) %}{% set c = (a ~ 'щ' ~ b)|translit|phone %}{% endfor %}{% endfor %}",
    "{% for a in [1] recursive %}{{ loop([a]) }}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    # Sources.
    "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "{{ " + "1+" * 3000 + "1 }}",
    "{{ " + "not " * 3000 + "1 }}",
    "{{ a" + ".b" * 3000 + " }}",
    "{% if 1 %}" * 1500 + "{% endif %}" * 1500,
    "{{ a }}" * 7000,
    "{{" * 30000,
    "{#" * 30000,
    "x" * 300_000,
    # Widths in disguise.
    "{{ now|date('" + "y" * 5000 + "') }}",
    "{{ amount|round(300000000) }}",
    "{{ 'x'|truncate(5, 'y' * 300000000) }}",
    "{{ ['a']|join('b' * 300000000) }}",
    "{{ '" + "%" * 4000 + "'|urlencode|urlencode }}",
    # Tests, too, are operators on values of any kind.
    "{% if '%600000000d' is odd %}{% endif %}",
    "{% if '%600000000d' is even %}{% endif %}",
    "{% if '%600000000d' is divisibleby(1) %}{% endif %}",
    "{% if '%*d' is divisibleby((50000000, 1)) %}{% endif %}",
    "{% set a = '%60000000d' %}{% for n in range(150) %}{% if a is odd %}{% endif %}{% endfor %}",
]


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_refused_or_cut_with_little_memory(render, source):
    tracemalloc.start()
    try:
        outcome = render(source)
    except RenderFailed as failed:
        outcome = [failed]
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert isinstance(outcome, list), f"it wrote {len(outcome)} characters"
    assert peak < 64 * MEGABYTE


ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ account['__class__'] }}",
    "{{ account.__init__.__globals__ }}",
    "{{ account.keys() }}",
    "{{ account.keys }}",
    "{{ data.items }}",
    "{{ now.tzinfo }}",
    "{{ amount.real }}",
    "{{ account.number.format }}",
    "{{ account.number|attr('format') }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler }}",
    "{{ dict(a=1) }}",
    "{{ namespace(a=1) }}",
    "{{ joiner }}",
    "{{ _zone }}",
    "{{ range.__class__ }}",
    "{{ [account]|map('upper') }}",
    "{% for a in charges %}{{ loop.cycle('a') }}{% endfor %}",
    "{% for a in charges %}{{ loop._iterable }}{% endfor %}",
    "{% for a in charges %}{{ loop }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block a %}{% endblock %}",
    "{% call x() %}{% endcall %}",
    "{% filter upper %}x{% endfilter %}",
    "{% set a %}x{% endset %}",
    "{% set account.number = 1 %}",
    "{% set ns.x = 1 %}",
    "{% with a = 1 %}{{ a }}{% endwith %}",
    "{% autoescape false %}{{ account.name }}{% endautoescape %}",
    "{{ account.name|safe }}",
    "{{ account.name|pprint }}",
    "{{ account.name|debug }}",
    "{{ range(*[1, 2]) }}",
    "{{ account }}",
    "{{ charges }}",
]


@pytest.mark.parametrize("kind", ["text", "html"])
@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_of_an_object_can_be_reached_but_its_own_fields(render, source, kind):
    try:
        outcome = render(source, kind, charges=CHARGES)
    except RenderFailed as failed:
        outcome = [failed]

    assert isinstance(outcome, list), outcome


@pytest.mark.parametrize(
    ("source", "line", "column", "code"),
    [
        ("{{ a }}\n{{ a|nofilter }}", 2, 6, "unknown_filter"),
        ("\n\n  {% include 'x' %}", 3, 6, "not_allowed"),
        ("{{ account.name.upper() }}", 1, 17, "not_allowed"),
        ("{{ a b }}", 1, 6, "syntax"),
        ("one\n{% if a %}", 2, 4, "syntax"),
        ("{{ a is nice }}", 1, 9, "unknown_test"),
        ("{% endfor %}", 1, 4, "syntax"),
    ],
)
def test_a_problem_has_its_line_and_column(render, source, line, column, code):
    problem = render(source)[0]

    assert (problem.line, problem.column, problem.code) == (line, column, code)


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("{{ amount }}\n{{ amont }}", 2, "`amont` is undefined"),
        ("\n\n\n{{ account.nick }}", 4, "`nick` is undefined"),
        ("{% if promo %}{% endif %}", 1, "`promo` is undefined"),
        ("{{ account.number|money }}x{{ account.name|money }}", 1, "money is written of a number"),
        ("a\n{{ amount / 0 }}", 2, "division"),
        ("{{ account.name|date }}", 1, "ISO 8601"),
        ("{{ amount|money('roubles') }}", 1, "RUB"),
    ],
)
def test_what_fails_while_it_is_written_says_in_which_line(render, source, line, said):
    with pytest.raises(RenderFailed) as failed:
        render(source)

    assert failed.value.line == line
    assert said.lower() in failed.value.detail.lower()


@pytest.mark.parametrize("kind", LIMITS)
def test_what_comes_out_has_a_length_of_its_own(render, kind):
    most = LIMITS[kind][2]
    line = "x" * min(most // 3, 1000)
    rounds = most // len(line)

    assert len(render(f"{{% for n in range({min(rounds, 900)}) %}}{line}{{% endfor %}}", kind)) <= most
    with pytest.raises(RenderFailed, match="more than"):
        render(f"{{% for n in range({rounds + 2}) %}}{{{{ name }}}}{{% endfor %}}", kind, name=line)


def test_the_variables_are_the_same_after_a_rendering(values):
    given_before = values()
    copy = {**given_before}

    compile_part("{% set amount = 1 %}{% set x = 2 %}{{ amount }}", "text").render(given_before, style_of("ru", sms=False))

    assert given_before == copy


TAGS = ["{{", "}}", "{%", "%}", "{#", "#}", "{% for a in charges %}", "{% endfor %}", "{% if ", "{% endif %}", "{% else %}", "{% set x = "]
WORDS = ["amount", "account.", "name", "charges", "loop", "x", "defined", "range(", " in ", " is ", " not ", " if ", " else ", *FILTERS]
SIGNS = ["[0]", "(", ")", "|", "~", "+", "-", "*", "/", ".", ",", " ", "\n", "'", '"', "1", "0.5", "[", "]", ":", "=", "=="]
pieces = st.sampled_from(TAGS + WORDS + SIGNS)


@effort(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=14).map("".join), st.sampled_from(sorted(LIMITS)))
def test_whatever_is_written_comes_out_as_text_or_as_a_problem_with_a_line(source, kind):
    part = compile_part(source, kind)
    if isinstance(part, list):
        assert all(problem.line >= 1 and problem.detail for problem in part)
        return
    given_values = {"amount": Decimal(5), "account": {"name": "a", "currency": "RUB"}, "charges": CHARGES, "name": "b"}
    with suppress(RenderFailed):
        assert len(part.render(given_values, style_of("ru", sms=kind == "sms"))) <= LIMITS[kind][2]
