"""HTML that one parser takes for one thing and another for something else, and values where escaping is not enough."""

import subprocess
import sys

import pytest

from app.rendering.harmless import as_link, as_style
from app.rendering.letters import DEFAULT, Dressed, Undressed, built_in, dressed
from tests.rendering.test_letters import SECTION, letter

SCRIPT = "<script>alert(1)</script>"


VALUES = {
    "evil": "javascript:alert(1)",
    "good": "https://isp.example/a?b=1&c=2",
    "colour": "red;background:url(https://evil.example)",
    "name": 'x" onclick="f()',
}


@pytest.mark.parametrize(
    "html",
    [
        f"<!--->{SCRIPT}--><p>b</p>",
        f"<!-->{SCRIPT}--><p>b</p>",
        f"<!-- a --!>{SCRIPT}--><p>b</p>",
        f"<!-- a --{{{{ name }}}}>{SCRIPT}--><p>b</p>",
        f"<!-- {{{{ name }}}}->{SCRIPT}--><p>b</p>",
        f"<!-- {{{{ name }}}}>{SCRIPT}--><p>b</p>",
        f"<!--{{{{ name }}}}>{SCRIPT}--><p>b</p>",
        f"</3 <style>{SCRIPT}</style><p>b</p>",
        f'<p a=1\x0btitle=">{SCRIPT}">b</p>',
        f"<svg><style><!--</style>{SCRIPT}--></style></svg>",
        f"<math><mtext><table><mglyph><style><!--</style>{SCRIPT}",
        f"<noscript><style></noscript>{SCRIPT}</style></noscript>",
        f"<xmp><style></xmp>{SCRIPT}</style></xmp>",
        '<p onclick="alert(1)">a</p>',
        '<a href="java&#x09;script:alert(1)">a</a>',
        '<a href=" javascript:alert(1)">a</a>',
        "<button formaction=http://evil.example>a</button>",
        "<style>@im\\port url(http://evil.example)</style><p>a</p>",
        "<style>@/**/import 'http://evil.example'</style><p>a</p>",
        '<p style="width:expr\\65ssion(alert(1))">a</p>',
    ],
)
@pytest.mark.parametrize("is_mjml", [False, True], ids=["html", "mjml"])
def test_a_source_that_hides_a_script_from_one_reader_is_refused(html, is_mjml):
    made = dressed(None, f"<mjml><mj-body>{SECTION.format(html)}</mj-body></mjml>", None) if is_mjml else dressed(html, None, built_in()[DEFAULT])
    assert isinstance(made, Undressed), made.source
    assert made.problems


@pytest.mark.parametrize(
    "html",
    [
        "<!-- a note --><p>a</p>",
        "<!--[if mso]><table><tr><td><![endif]--><p>a {{ name }}</p><!--[if mso]></td></tr></table><![endif]-->",
        "<!--[if !mso]><!--><p>a</p><!--<![endif]-->",
        '<a href="https://isp.example/{{ name }}" style="color: {{ colour }}">a</a>',
    ],
)
def test_what_letters_need_is_no_attack(html):
    assert isinstance(dressed(html, None, built_in()[DEFAULT]), Dressed)


def test_nothing_that_ends_a_comment_early_gets_past_the_bound_of_depth():
    """In a process of its own: what gets past takes the process with it."""
    program = (
        "from app.rendering.letters import *\n"
        "for html in ('<!--->', '<!-- --!>', '<!-->', '</3 <style>', '<svg><style><!--</style>'):\n"
        "    for words in (html + '<div>' * 20000 + 'a', html + '<b a=1><i>' * 20000):\n"
        "        assert isinstance(dressed(words, None, built_in()[DEFAULT]), Undressed), html\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_value_that_is_no_address_leads_nowhere(values):
    given = values() | VALUES
    html = '<a href="{{ evil }}">a</a><a href="{{ good }}">b</a><img src=" {{ evil }}"><a href="https://isp.example/{{ name }}">c</a>'
    said = letter(html).compose(given).html
    assert "javascript" not in said
    assert 'href="https://isp.example/a?b=1&amp;c=2"' in said
    assert 'href="https://isp.example/x&#34; onclick=&#34;f()"' in said


def test_a_value_in_a_style_is_one_value(values):
    given = values() | VALUES | {"good_colour": "#0b5cad"}
    said = letter('<p style="color:{{ colour }}">a</p><p style="color:{{ good_colour }}">b</p>').compose(given).html
    assert "evil.example" not in said
    assert "color:#0b5cad" in said.replace(": ", ":")


@pytest.mark.parametrize(
    "address", ["javascript:x", "JaVa\tScRiPt:x", "\u200bjavascript:x", "data:text/html,x", "vbscript:x", ":x", "about:blank", "file:///etc/passwd"]
)
def test_what_a_mail_program_would_run_is_no_link(address):
    assert as_link(address) == ""


@pytest.mark.parametrize("address", ["https://a.example/?x=javascript:1", "mailto:a@b.example", "tel:+79161234567", "/path", "page?a:b", ""])
def test_addresses_stay_as_they_are(address):
    assert as_link(address) == address


@pytest.mark.parametrize(
    ("value", "stays"), [("#FFF", True), ("rgb(1, 2, 3)", True), ("Arial, 'PT Sans'", True), ("red;x", False), ("url(a)", False), ("a\\3b", False)]
)
def test_a_style_is_a_value_and_nothing_more(value, stays):
    assert as_style(value) == (value if stays else "")
