"""The text of a letter, made of its HTML."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.rendering.plain import text_of


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a</p><p>b</p>", "a\n\nb"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("<h1>T</h1>text<br>more<br><br>end", "T\n\ntext\nmore\n\nend"),
        ("  a \n\t b&nbsp;c <b> d</b>e", "a b c de"),
        ("<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>x", "- a\n- b\n  - c\n\nx"),
        ("<ol start=3><li>a<li>b</ol>", "3. a\n4. b"),
        ("<table><tr><th>Услуга</th><th>Сумма</th></tr><tr><td>ТВ</td><td>5 ₽</td></tr></table>", "Услуга  Сумма\nТВ  5 ₽"),
        ("<table><tr><td><table><tr><td><p>a</p></td></tr></table></td></tr></table>", "a"),
        ("<table><tr><td></td><td>a</td></tr></table>", "a"),
        ('<a href="https://isp.example/pay">Оплатить</a>', "Оплатить (https://isp.example/pay)"),
        ('<a href="https://isp.example/">isp.example</a>', "isp.example"),
        ('<a href="https://isp.example/x"><img src="cid:a" alt="Логотип"></a>', "Логотип (https://isp.example/x)"),
        ('<a href="https://isp.example/x"></a>', "https://isp.example/x"),
        ('<a href="mailto:a@b.example">a@b.example</a>, <a href="tel:+7916">позвоните</a>', "a@b.example, позвоните (+7916)"),
        ('<a href="javascript:alert(1)">a</a> <a href="#top">b</a> <a href="cid:x">c</a> <a>d</a>', "a b c d"),
        ("a<hr>b", "a\n\n---\n\nb"),
        ("<pre>a  b\n  c</pre>d", "a  b\n  c\n\nd"),
        ("1 &lt; 2 &amp;&amp; &#51; &gt; 2 &euro;", "1 < 2 && 3 > 2 €"),
        ("<img src=x><img alt=''>", ""),
        ("", ""),
    ],
)
def test_html_is_laid_out_in_lines(html, text):
    assert text_of(html) == text


@pytest.mark.parametrize(
    "html",
    [
        "<style>p{color:red}</style>",
        "<script>alert('<p>x</p>')</script>",
        "<title>x</title>",
        "<head><style>a{}</style><title>x</title></head>",
        '<div style="Display : NONE; color:red">x<p>y</p></div>',
        "<div hidden>x<div>y</div></div>",
        '<span style="mso-hide:all">x</span>',
        "<!-- <p>x</p> --><!--[if mso]><p>x</p><![endif]-->",
        "<!doctype html>",
        "&#8203;&zwnj;&shy;&#847;&#65279;",
        "<template><p>x</p></template><noscript>y</noscript>",
    ],
)
def test_what_nobody_sees_is_not_in_the_text(html):
    assert text_of(f"<p>a</p>{html}<p>b</p>") == "a\n\nb"


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a<p>b", "a\n\nb"),
        ("</div></p></ul></li>a", "a"),
        ("<li>a</li>", "- a"),
        ("<p>a<b>b<i>c</p>d", "abc\n\nd"),
        ("a < b", "a < b"),
        ("<a href='https://x.example'>a<a href='https://y.example'>b</a>", "ab (https://y.example)"),
        ("<p hidden>a", ""),
        ("<" * 2000, "<" * 2000),
        ("<p>" * 5000 + "a" + "</p>" * 5000, "a"),
        ("<ul>" * 500 + "<li>a", "              - a"),
    ],
)
def test_html_that_is_none_has_a_text_all_the_same(html, text):
    assert text_of(html).rstrip() == text.rstrip()


def test_a_letter_reads_well_as_a_text():
    html = """<html><head><title>T</title></head><body><div style="display:none">preview</div>
    <table><tr><td><h1>Предстоящие списания</h1><p>Здравствуйте,
    Юлия!</p><table><tbody><tr><td>Интернет</td> <td>600,00 ₽</td></tr> <tr><td>ТВ</td><td>250,00 ₽</td></tr></tbody></table>
    <p><a href="https://isp.example/pay">Пополнить счёт</a></p></td></tr></table></body></html>"""

    assert text_of(html) == ("Предстоящие списания\n\nЗдравствуйте, Юлия!\n\nИнтернет  600,00 ₽\nТВ  250,00 ₽\n\nПополнить счёт (https://isp.example/pay)")


@settings(max_examples=200)
@given(
    st.lists(
        st.sampled_from(
            [
                "<p>",
                "</p>",
                "<td>",
                "<tr>",
                "<table>",
                "</table>",
                "<li>",
                "<ul>",
                "</ul>",
                "<br>",
                "<a href='https://a.b'>",
                "</a>",
                "<pre>",
                "a",
                " ",
                "\n",
                "<b",
                ">",
                "&amp",
                "<style>",
                "</style>",
                "<!--",
                "-->",
            ]
        )
    )
)
def test_any_soup_has_a_tidy_text(pieces):
    text = text_of("".join(pieces))

    assert "\n\n\n" not in text
    assert text == text.strip("\n")
    assert all(line == line.rstrip() for line in text.split("\n"))
