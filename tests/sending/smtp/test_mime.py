"""What build() writes, read back with the standard library: whatever goes in comes out."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import parseaddr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.attachments.files import File
from app.sending.smtp.mime import MalformedLetter, build

# Everything that can be stored as text: no lone surrogates. A header further has no CR, LF and NUL.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=200)
ADDRESS_LINE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=100)


def read(data: bytes) -> EmailMessage:
    return message_from_bytes(data, policy=default)


def unfolded(data: bytes, name: str) -> str:
    """The value as it was written. The policy of the standard library decodes it too, but drops characters that it takes for line breaks."""
    head = data.split(b"\r\n\r\n", 1)[0].decode()
    [value] = re.findall(rf"^{name}: ?([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", head, re.MULTILINE)
    return value.replace("\r\n", "")


def decoded(value: str) -> str:
    """RFC 2047 alone."""
    return str(make_header(decode_header(value)))


def assert_well_formed(data: bytes) -> None:
    assert data.endswith(b"\r\n")
    assert data.count(b"\n") == data.count(b"\r\n") == data.count(b"\r")
    assert max(map(len, data.split(b"\r\n"))) <= 998
    for part in read(data).walk():
        assert part.defects == []


def lines_of(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


@given(text=TEXT, html=st.none() | TEXT)
def test_any_text_and_html_come_back_as_they_were_written(letter, text, html):
    data = build(letter(text=text, html=html)).data

    message = read(data)
    assert lines_of(message.get_body(("plain",)).get_content()) == lines_of(text)
    assert (message.get_body(("html",)) is None) == (html is None)
    if html is not None:
        assert lines_of(message.get_body(("html",)).get_content()) == lines_of(html)
    assert_well_formed(data)


@given(subject=LINE)
def test_any_subject_comes_back_as_it_was_written(letter, subject):
    data = build(letter(subject=subject)).data

    assert decoded(unfolded(data, "Subject")) == subject
    assert_well_formed(data)


@given(subject=st.text("абвгд ежз", min_size=1, max_size=300))
def test_the_standard_library_reads_every_cyrillic_subject(letter, subject):
    data = build(letter(subject=subject)).data

    assert read(data)["subject"] == subject
    assert all(len(line) <= 76 for line in data.split(b"\r\n\r\n")[0].split(b"\r\n") if b"=?" in line)  # RFC 2047, 2


@given(name=ADDRESS_LINE)
def test_any_sender_name_comes_back_as_it_was_written(letter, name):
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

    message = build(letter(sender=f"{quoted} <noreply@isp.example>"))

    read_name, address = parseaddr(unfolded(message.data, "From"))
    assert decoded(read_name) == name
    assert address == message.mail_from == "noreply@isp.example"
    assert_well_formed(message.data)


def test_a_letter_has_the_headers_that_a_reader_and_a_robot_look_for(letter):
    message = read(build(letter(headers={"List-Unsubscribe": "<https://isp.example/u/1>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"})).data)

    assert message["from"].addresses[0].display_name == "Мой Провайдер"
    assert message["to"] == "subscriber@example.org"
    assert message["date"].datetime == datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    assert re.fullmatch(r"<\d+@isp\.example>", message["message-id"])
    assert message["auto-submitted"] == "auto-generated"
    assert message["mime-version"] == "1.0"
    assert message["list-unsubscribe"] == "<https://isp.example/u/1>"
    assert message["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"


def test_html_is_the_second_of_two_alternatives(letter):
    message = read(build(letter(html="<p>Спасибо!</p>")).data)

    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Balance 612.30\n", "7bit"),
        ("x" * 999, "quoted-printable"),
        ("Your balance — 612.30 roubles " * 10, "quoted-printable"),
        ("Баланс: 612,30 ₽", "base64"),
        ("NUL \0", "quoted-printable"),
    ],
)
def test_each_text_has_the_shortest_encoding_that_carries_it(letter, text, encoding):
    message = read(build(letter(text=text)).data)

    assert message["content-transfer-encoding"] == encoding
    assert lines_of(message.get_content()) == lines_of(text)


def test_a_text_that_looks_like_our_boundary_does_not_end_its_part(letter):
    sent = letter(html="<p>x</p>")
    text = f"before\n--=_{sent.key.hex}--\nafter"

    message = read(build(replace(sent, text=text)).data)

    assert lines_of(message.get_body(("plain",)).get_content()) == lines_of(text)


@pytest.mark.parametrize("value", ["a\r\nBcc: victim@example.org", "a\nb", "a\rb", "a\0b"])
@pytest.mark.parametrize("field", ["subject", "to", "sender", "message_id", "header value", "header name"])
def test_nothing_can_be_injected_into_a_header(letter, field, value):
    changes = {"header value": {"headers": {"X-Tag": value}}, "header name": {"headers": {value: "x"}}}.get(field) or {field: f"<{value}@isp.example>"}

    with pytest.raises(MalformedLetter):
        build(letter(**changes))


@pytest.mark.parametrize("name", ["Subject", "from", "Content-Type", "Auto-Submitted", "Bcc"])
def test_a_header_of_our_own_cannot_be_given_a_second_time(letter, name):
    with pytest.raises(MalformedLetter, match="can be added"):
        build(letter(headers={name: "x"}))


@pytest.mark.parametrize("changes", [{"subject": "\ud800"}, {"text": "\udfff"}, {"date": datetime(2026, 1, 1)}, {"to": "no address"}, {"to": ""}, {"to": "a@"}])
def test_what_cannot_be_written_down_is_malformed(letter, changes):
    with pytest.raises(MalformedLetter):
        build(letter(**changes))


def test_a_long_header_is_folded_between_its_words_and_never_inside_one(letter):
    links = ", ".join(f"<https://isp.example/unsubscribe/{'t' * 60}/{n}>" for n in range(4))

    data = build(letter(headers={"List-Unsubscribe": links})).data

    assert read(data)["list-unsubscribe"] == links
    assert b"\r\nList-Unsubscribe: <https" in data
    with pytest.raises(MalformedLetter, match="longer than a line"):
        build(letter(headers={"List-Unsubscribe": f"<https://isp.example/{'t' * 1000}>"}))


def test_an_international_domain_goes_as_ascii_and_an_international_name_needs_smtputf8(letter):
    domain, local = build(letter(to="ivan@пример.рф")), build(letter(to="иван@пример.рф"))

    assert (domain.rcpt_to, domain.smtputf8) == ("ivan@xn--e1afmkfd.xn--p1ai", False)
    assert (local.rcpt_to, local.smtputf8) == ("иван@xn--e1afmkfd.xn--p1ai", True)
    assert "\r\nTo: иван@xn--e1afmkfd.xn--p1ai\r\n" in local.data.decode()


@settings(max_examples=30)
@given(st.emails())
def test_every_ordinary_address_reaches_the_envelope_unchanged(letter, address):
    assert build(letter(to=address)).rcpt_to == address


# --- files ---

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 3
FILE_NAME = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="/\\"), min_size=1, max_size=120)


def structure(message) -> object:
    """`("mixed", [...])`, a file by its name."""
    if message.is_multipart():
        return message.get_content_subtype(), [structure(part) for part in message.iter_parts()]
    return message.get_filename() or message.get_content_subtype()


def a_file(name: str = "statement.pdf", content_type: str = "application/pdf", data: bytes = b"%PDF", *, inline: bool = False) -> File:
    return File(name, content_type, data, inline)


@pytest.mark.parametrize(
    ("html", "files", "expected"),
    [
        (None, [a_file()], ("mixed", ["plain", "statement.pdf"])),
        ("<p>x</p>", [a_file()], ("mixed", [("alternative", ["plain", "html"]), "statement.pdf"])),
        ('<img src="cid:a.png">', [a_file("a.png", "image/png", PNG, inline=True)], ("related", [("alternative", ["plain", "html"]), "a.png"])),
        (
            "<img src='cid:a.png'>",
            [a_file(), a_file("a.png", "image/png", PNG, inline=True), a_file("b.csv", "text/csv; charset=utf-8")],
            ("mixed", [("related", [("alternative", ["plain", "html"]), "a.png"]), "statement.pdf", "b.csv"]),
        ),
        ("<p>x</p>", [a_file("a.png", "image/png", PNG, inline=True)], ("mixed", [("alternative", ["plain", "html"]), "a.png"])),
        (None, [a_file("a.png", "image/png", PNG, inline=True)], ("mixed", ["plain", "a.png"])),
    ],
)
def test_files_stand_beside_the_words_and_what_the_html_shows_stands_with_it(letter, html, files, expected):
    data = build(letter(html=html, files=files)).data

    assert structure(read(data)) == expected
    assert_well_formed(data)


def test_the_html_names_its_pictures_by_what_no_other_letter_has(letter):
    files = [
        a_file("pay qr.png", "image/png", PNG, inline=True),
        a_file("лого.png", "image/png", PNG, inline=True),
        a_file("x&y.png", "image/png", PNG, inline=True),
    ]
    html = (
        '<img src="cid:pay%20qr.png"><b style="background:url(cid:лого.png)"></b><img src="cid:x&amp;y.png"><img src="cid:nobody"><img src="CID:pay%20qr.png">'
    )

    sent = letter(html=html, files=files)
    message = read(build(sent).data)

    html = message.get_body(("html",)).get_content()
    parts = {part["content-id"].strip("<>"): part for part in message.walk() if part["content-id"]}
    named = re.findall(r"cid:([^\")]+)", html)
    unique = sent.message_id.strip("<>")
    assert named == [f"0.{unique}", f"1.{unique}", f"2.{unique}", "nobody", f"0.{unique}"]
    assert set(parts) == {f"{number}.{unique}" for number in range(3)}
    assert all(part.get_content() == PNG and part.get_content_disposition() == "inline" for part in parts.values())


@given(name=FILE_NAME)
def test_any_file_name_comes_back_as_it_was_written(letter, name):
    data = build(letter(files=[a_file(name)])).data

    [part] = [part for part in read(data).walk() if part.get_content_disposition() == "attachment"]
    assert part.get_filename() == name.strip() or not name.strip()
    assert_well_formed(data)


@given(data=st.binary(max_size=500))
def test_any_octets_come_back_as_they_were(letter, data):
    built = build(letter(files=[a_file(data=data)])).data

    [part] = [part for part in read(built).walk() if part.get_filename()]
    assert part.get_content() == data
    assert all(len(line) <= 76 for line in built.split(b"\r\n\r\n")[-1].split(b"\r\n"))


@pytest.mark.parametrize(
    "name", ['a"; x="b', "a\r\nBcc: victim@example.org\r\n\r\nbody", "a\x00b", "../../etc/passwd", "..\\x", "\u2028", " ", "a" * 255 + ".pdf", "я" * 255]
)
@pytest.mark.parametrize("content_type", ["application/pdf", "x\r\nBcc: victim@example.org", "text/html; a=b\r\n\r\n<p>", "nonsense", ""])
def test_nothing_can_be_injected_by_a_file(letter, name, content_type):
    data = build(letter(files=[a_file(name, content_type)])).data

    message = read(data)
    [part] = [part for part in message.walk() if part.get_content_disposition() == "attachment"]
    assert message["bcc"] is None
    assert part.get_content() == b"%PDF"
    assert not set(part.get_filename()) & set("\r\n\0/\\")
    assert part.get_content_type() in ("application/pdf", "application/octet-stream")
    assert_well_formed(data)


def test_a_type_keeps_its_parameters(letter):
    data = build(letter(files=[a_file("due.ics", "text/calendar; charset=utf-8; method=PUBLISH", b"BEGIN:VCALENDAR")])).data

    assert b"Content-Type: text/calendar; charset=utf-8; method=PUBLISH\r\n" in data


def test_answers_go_where_the_brand_wants_them(letter):
    message = read(build(letter(reply_to="Помощь <help@isp.example>")).data)

    assert message["reply-to"].addresses[0].display_name == "Помощь"
    assert message["reply-to"].addresses[0].addr_spec == "help@isp.example"
    with pytest.raises(MalformedLetter):
        build(letter(reply_to="a@b.example\r\nBcc: x@y.example"))


def test_a_letter_of_ten_mebibytes_is_built_in_lines_of_76(letter):
    data = build(letter(files=[a_file(data=bytes(10 << 20))])).data

    assert max(map(len, data.split(b"\r\n"))) <= 76 + 2
    [part] = [part for part in read(data).walk() if part.get_filename()]
    assert len(part.get_content()) == 10 << 20
