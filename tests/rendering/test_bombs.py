"""Templates that want all the memory or all the time: each is refused or cut within 100 MB and one second of a processor, in a process that ends at either."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rendering.test_engine import BOMBS

ROOT = Path(__file__).parents[2]
MORE = [
    # Work that grows with the source while nothing is written yet.
    ("a great many mistakes in one line", "{{ a|x }}" * 3500, "text"),
    ("a great many unknown names", "{{ x }}" * 4500, "text"),
    ("a long way of conditions", "{% if a %}x" + "{% elif b %}y" * 1900 + "{% endif %}", "text"),
    ("and after and", "{{ 1 if " + "balance and " * 2500 + "1 else 2 }}", "text"),
    ("a path without end", "{{ account" + ".name" * 5000 + " }}", "text"),
    ("filters without end", "{{ account.name" + "|upper" * 5000 + " }}", "text"),
    ("brackets that never close", "{{ " + "[" * 30_000, "text"),
    ("blocks that never close", "{% if a %}" * 3000, "text"),
    ("one text of tags", "{{'" + "{{" * 15_000 + "'}}", "text"),
    ("white space between tags", ("{%- if a -%}" + " " * 500 + "{%- endif -%}") * 120, "text"),
    ("line ends", "\n" * 65_000 + "{{ a b }}", "text"),
    # Work that is hidden in one step.
    ("a hard date", "{% for n in range(900) %}{{ now|date('EEEE d MMMM y EEEE d MMMM y EEEE d MM') }}{% endfor %}", "text"),
    ("dates that are all different", "{% for n in range(900) %}{{ ('20' ~ (n % 90 + 10) ~ '-01-01')|date('EEEE, d MMMM y') }}{% endfor %}", "text"),
    ("sums that are all different", "{% for n in range(900) %}{{ (n * 7919)|money('EUR') }}{{ (n * 104729)|money('USD') }}{% endfor %}", "text"),
    ("replacing within replacing", "{% set a = 'ab' %}{% for n in range(900) %}{{ ('ab' * 1)|default('') }}{% endfor %}", "text"),
    ("phones", "{% for n in range(900) %}{{ ('+7916' ~ (n + 1000000))|phone }}{% endfor %}", "text"),
    ("escaping", "{% set a = '<' ~ '<<<<<<<<<<' %}" + "{% set a = a|replace('<', '<<<<')|e %}" * 30 + "{{ a }}", "html"),
    ("urls of urls", "{% set a = '%%%%%%%%%%' %}" + "{% set a = a|urlencode %}" * 30 + "{{ a }}", "text"),
    ("cases that grow", "{% set a = 'ŉŉŉŉŉŉŉŉŉŉ' %}" + "{% set a = (a ~ a ~ a)|upper %}" * 30 + "{{ a }}", "text"),
    ("long division", "{% set a = 1 %}" + "{% set a = a / 3 * 1.1 %}" * 900 + "{{ a }}", "text"),
    ("a slice of a slice", "{{ ('x' ~ account.name)[0:300000000:1]|truncate(300000000) }}" + "{{ range(1000)|join(',') }}" * 900, "text"),
    ("sorting by comparing lists", "{% for a in range(300) %}{{ [1, 2] == [1, 2] }}{{ range(1000)|max }}{{ range(1000)|sum }}{% endfor %}", "text"),
    ("looking for one in many", "{% for a in range(900) %}{{ 'x' in range(1000) }}{{ -1 in range(1000) }}{% endfor %}", "text"),
    ("sums without a loop", "{{range(1000)|sum}}" * 1600, "text"),
    ("sums in loops", "{% for a in range(100) %}{% for b in range(100) %}{% set c = range(1000)|sum %}{% endfor %}{% endfor %}", "text"),
    ("urls in loops", "{% set a = range(1000)|join('%%%%%%') %}{% for n in range(900) %}{% set b = a|urlencode|length %}{% endfor %}", "text"),
    ("cases in loops", "{% set a = range(1000)|join('Щщщщщщ') %}{% for n in range(1000) %}{% set b = a|title|upper|title|lower %}{% endfor %}", "text"),
    ("lists that are equal", "{% for a in range(1000) %}{% for b in range(10) %}{% if events == events %}{% endif %}{% endfor %}{% endfor %}", "text"),
    ("a test of a text in a loop", "{% for a in range(150) %}{% if '%60000000d' is odd %}{% endif %}{% endfor %}", "text"),
    ("a width that a list names", "{% if '%*d' is divisibleby((50000000, 1)) %}{% endif %}", "sms"),
    ("looking by a test", "{% for a in range(900) %}{% if 'x' is in(range(1000)) %}{% endif %}{% endfor %}", "text"),
    ("asking of each item", "{% for a in range(1000) if " + "a and " * 1000 + "a %}{% endfor %}", "text"),
    (
        "currencies that are all different",
        "{% set l = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ' %}{% for a in range(26) %}{% for b in range(26) %}{{ 1|money('X' ~ l[a] ~ l[b]) }}{% endfor %}{% endfor %}",
        "text",
    ),
    ("a number of many digits", "{{ " + "1" * 31_000 + " }}", "text"),
    ("a number with an exponent", "{{ 1e308 * 1e308 * 1e308 }}{{ (1e308|int) * (1e308|int) }}", "text"),
    ("a width that is a number", "{{ 'x'|truncate(999999999999999999999) }}{{ 1|round(6)|round(6) }}{{ 'x' * 5 }}", "text"),
    ("an SMS of letters", "{% for a in range(1000) %}" + "Ж" * 60 + "{% endfor %}", "sms"),
]
# These are no bombs after all: they write what they say, within bounds.
HARMLESS = {
    "escaping",
    "urls of urls",
    "a hard date",
    "dates that are all different",
    "sums that are all different",
    "phones",
    "one text of tags",
    "white space between tags",
    "a long way of conditions",
}


@pytest.fixture(scope="module")
def throw():
    """`throw(source, kind)`: what became of it."""
    with subprocess.Popen([sys.executable, "-m", "tests.rendering.bomb_range"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def thrown(source: str, kind: str = "text") -> dict:
            process.stdin.write(json.dumps([source, kind]) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield thrown
        process.stdin.close()


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_bomb_of_the_list_is_refused_or_cut(throw, source):
    fell = throw(source)

    assert fell["outcome"] in ("refused", "cut"), fell
    assert fell["detail"]


@pytest.mark.parametrize(("name", "source", "kind"), MORE, ids=[name for name, *_ in MORE])
def test_other_bomb_is_refused_or_cut_or_does_no_harm(throw, name, source, kind):
    fell = throw(source, kind)

    assert fell["outcome"] in ("refused", "cut", *(("wrote",) if name in HARMLESS else ())), fell


def test_range_itself_would_tell(throw):
    """A rendering that takes what it likes is ended, and said to be."""
    script = "import json, tests.rendering.bomb_range as r\nr.tried = lambda *a: {}\nprint(json.dumps(r.thrown('x', 'text', {{}})))"
    eats, spins = "('wrote', str(len('A' * 300000000)))", "exec('while True: pass')"
    said = [subprocess.check_output([sys.executable, "-c", script.format(work)], cwd=ROOT, text=True) for work in (eats, spins)]

    assert [json.loads(line)["outcome"] for line in said] == ["memory", "killed"]
