"""/attachments: files come in by the form, are kept once, and go out as downloads."""

import asyncio
import hashlib
from uuid import uuid4

import pytest
import sqlalchemy as sa

from app.attachments.models import Attachment, AttachmentPart
from app.attachments.store import PIECE
from app.attachments.upload import LARGEST
from app.core.models import AuditRecord
from app.rendering.models import Brand, TemplateVersion
from tests.builders import files
from tests.builders.files import uploaded

FORM = {"Content-Type": "multipart/form-data; boundary=b"}


def a_form(*parts: tuple[str, bytes], end: str = "--b--\r\n") -> bytes:
    """Parts as (Content-Disposition's parameters, contents)."""
    return b"".join(f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n" for head, data in parts) + end.encode()


async def counted(database, model) -> int:
    async with database.transaction() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(model))


async def test_operator_uploads_a_file_and_gets_it_back(api):
    data = files.PDF + bytes(range(256)) * 4000  # four pieces

    answer = await api.post("/attachments", files={"file": ("Прайс.pdf", data, "text/html")})
    meta = answer.json()
    content = await api.get(f"/attachments/{meta['id']}/content")

    assert answer.status_code == 201
    assert (meta["name"], meta["content_type"], meta["size"]) == ("Прайс.pdf", "application/pdf", len(data))
    assert meta["sha256"] == hashlib.sha256(data).hexdigest()
    assert (await api.get(f"/attachments/{meta['id']}")).json() == meta
    assert content.content == data


async def test_a_download_is_shut_in(api):
    meta = await uploaded(api, files.PNG, "Лого.png")

    headers = (await api.get(f"/attachments/{meta['id']}/content")).headers

    assert headers["content-type"] == "image/png"
    assert headers["content-disposition"] == "attachment; filename=\"____.png\"; filename*=UTF-8''%D0%9B%D0%BE%D0%B3%D0%BE.png"
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers["content-length"] == str(len(files.PNG))


async def test_the_contents_stand_in_pieces(api, database):
    data = b"word " * 200_000

    await uploaded(api, data, "a.txt")

    async with database.transaction() as session:
        sizes = (await session.execute(sa.select(sa.func.length(AttachmentPart.data)).order_by(AttachmentPart.n))).scalars().all()
    assert sizes == [PIECE, PIECE, PIECE, len(data) - 3 * PIECE]


async def test_the_same_bytes_again_are_the_same_file(api, database):
    first = await api.post("/attachments", files={"file": ("one.pdf", files.PDF)})
    second = await api.post("/attachments", files={"file": ("two.pdf", files.PDF)})

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert await counted(database, AttachmentPart) == 1


async def test_many_who_upload_the_same_at_once_get_one_file(api, database):
    answers = await asyncio.gather(*(api.post("/attachments", files={"file": (f"{n}.pdf", files.PDF)}) for n in range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await counted(database, Attachment) == 1


async def test_a_file_may_have_five_mebibytes_and_no_more(api, database):
    fits = b"a" * LARGEST

    taken = await api.post("/attachments", files={"file": ("a.txt", fits)})
    refused = await api.post("/attachments", files={"file": ("a.txt", fits + b"a")})

    assert (taken.status_code, taken.json()["size"]) == (201, LARGEST)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert await counted(database, Attachment) == 1


async def test_a_body_without_a_length_ends_at_the_limit(api, database):
    sent = 0

    async def endless():
        nonlocal sent
        yield a_form(('name="file"; filename="a.txt"', b""), end="").removesuffix(b"\r\n")
        while True:
            sent += 65536
            yield b"a" * 65536

    answer = await api.post("/attachments", content=endless(), headers=FORM)

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert sent <= LARGEST + 3 * 65536
    assert await counted(database, Attachment) == 0


@pytest.mark.parametrize(
    ("data", "name"), [(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.png"), (b"<html>", "a.txt"), (b"MZ\x90\0", "a.pdf"), (b"x", "a.js")]
)
async def test_what_is_not_taken_is_refused_and_not_kept(api, database, data, name):
    answer = await api.post("/attachments", files={"file": (name, data, "application/pdf")})

    assert (answer.status_code, answer.json()["code"]) == (415, "content_not_taken")
    assert "Send a PDF" in answer.json()["detail"]
    assert await counted(database, Attachment) == 0


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (a_form(), 422, "missing"),
        (a_form(('name="file"; filename="a.txt"', b"")), 422, "empty_file"),
        (a_form(('name="other"; filename="a.txt"', b"x")), 422, "extra_forbidden"),
        (a_form(('name="file"; filename="a.txt"', b"x"), ('name="file"; filename="b.txt"', b"x")), 422, "too_many"),
        (a_form(('name="file"; filename="a.txt"', b"x"), ('name="note"', b"x")), 422, "extra_forbidden"),
        (a_form(('name="file"; filename="a.txt"', b"x"), end=""), 400, "body_unfinished"),
        (a_form(('name="file"; filename="a.txt"', b"x"), end="--b-"), 400, "body_unfinished"),
        (b"", 400, "body_unfinished"),
        (b"no form at all", 400, "malformed_multipart"),
        (b"--b\r\n" + b"X: y\r\n" * 50 + b"\r\nx\r\n--b--\r\n", 400, "malformed_multipart"),
        (b"--b\r\nContent-Disposition: " + b"x" * 10_000 + b"\r\n\r\nx\r\n--b--\r\n", 400, "malformed_multipart"),
    ],
)
async def test_a_form_that_is_none_is_refused_with_what_to_change(api, database, body, status, code):
    answer = await api.post("/attachments", content=body, headers=FORM)

    problem = answer.json()
    found = problem["errors"][0]["code"] if problem["errors"] else problem["code"]
    assert (answer.status_code, found) == (status, code)
    assert await counted(database, Attachment) == 0


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 415),
        ("multipart/mixed; boundary=b", 415),
        ("", 415),
        ("multipart/form-data", 400),
        (f"multipart/form-data; boundary={'b' * 71}", 400),
    ],
)
async def test_another_content_type_is_refused(api, kind, status):
    answer = await api.post("/attachments", content=a_form(('name="file"; filename="a.txt"', b"x")), headers={"Content-Type": kind})

    assert answer.status_code == status


async def test_a_hostile_name_is_cleaned(api):
    body = a_form(('name="file"; filename="..\\..\\x\u202etxt.exe"', files.PDF))

    answer = await api.post("/attachments", content=body, headers=FORM)

    assert answer.json()["name"] == "xtxt.exe.pdf"


async def test_the_list_goes_on_by_its_cursor(api):
    made = [(await uploaded(api, b"text %d" % n, "a.txt"))["id"] for n in range(5)]

    seen, cursor = [], None
    while cursor is not None or not seen:
        page = (await api.get("/attachments", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert seen == made[::-1]


async def test_a_file_that_nothing_names_is_deleted(api, database):
    meta = await uploaded(api, files.PDF)

    answer = await api.delete(f"/attachments/{meta['id']}")

    assert answer.status_code == 204
    assert await counted(database, AttachmentPart) == 0
    for path in ("", "/content"):
        gone = await api.get(f"/attachments/{meta['id']}{path}")
        assert (gone.status_code, gone.json()["code"]) == (404, "attachment_not_found")
    again = await api.post("/attachments", files={"file": ("a.pdf", files.PDF)})
    assert (again.status_code, again.json()["id"] != meta["id"]) == (201, True)


async def test_a_file_that_a_version_names_stays(api, database):
    meta = await uploaded(api, files.PDF)
    async with database.transaction() as session:
        version = (await session.scalars(sa.select(TemplateVersion).limit(1))).one()
        version.attachments = [{"kind": "calendar"}, {"kind": "file", "id": meta["id"], "name": "x.pdf"}]

    answer = await api.delete(f"/attachments/{meta['id']}")

    assert (answer.status_code, answer.json()["code"]) == (409, "attachment_in_use")
    assert "Version 1 of the template" in answer.json()["detail"]
    assert (await api.get(f"/attachments/{meta['id']}/content")).content == files.PDF


async def test_a_file_that_a_brand_names_stays(api, database):
    meta = await uploaded(api, files.PNG, "logo.png")
    async with database.transaction() as session:
        session.add(Brand(name="north", settings={"logo": meta["id"]}, updated_by="test"))

    answer = await api.delete(f"/attachments/{meta['id']}")

    assert (answer.status_code, answer.json()["code"]) == (409, "attachment_in_use")
    assert answer.json()["detail"] == "The brand 'north' names this file."


async def test_deletion_waits_for_a_version_that_is_just_being_written(api, database):
    """The version is added first: its file is held until the commit, and is in use then."""
    from app.attachments.keep import unusable
    from app.attachments.shapes import read_specs

    meta = await uploaded(api, files.PDF)
    specs = [{"kind": "file", "id": meta["id"]}]
    async with database.transaction() as session:
        assert await unusable(session, read_specs(specs), "attachments") == []
        deletion = asyncio.create_task(api.delete(f"/attachments/{meta['id']}"))
        version = (await session.scalars(sa.select(TemplateVersion).limit(1))).one()
        version.attachments = specs
        async with database.transaction() as other:
            waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
            while not await other.scalar(waiting):
                assert not deletion.done()
                await asyncio.sleep(0.01)

    assert (await deletion).status_code == 409


async def test_a_version_that_names_nobodys_file_or_too_many_octets_is_refused(api):
    template = (await api.post("/templates", json={"type": "payment.received", "channel": "email", "locale": "de"})).json()["id"]
    large = [(await uploaded(api, b"%d" % n * LARGEST, "a.txt"))["id"] for n in range(2)]

    async def added(*attachments: dict):
        return await api.post(f"/templates/{template}/versions", json={"subject": "s", "text": "t", "attachments": attachments})

    unknown = await added({"kind": "calendar"}, {"kind": "file", "id": str(uuid4())})
    too_much = await added(*({"kind": "file", "id": one} for one in large))
    fits = await added({"kind": "calendar"}, {"kind": "file", "id": large[0]})

    assert [(fault["pointer"], fault["code"]) for fault in unknown.json()["errors"]] == [("/attachments/1/id", "unknown_attachment")]
    assert [(fault["pointer"], fault["code"]) for fault in too_much.json()["errors"]] == [("/attachments", "too_large")]
    assert (unknown.status_code, too_much.status_code, fits.status_code) == (422, 422, 201)
    assert (await api.delete(f"/attachments/{large[0]}")).json()["code"] == "attachment_in_use"
    assert (await api.delete(f"/attachments/{large[1]}")).status_code == 204


async def test_an_uploader_who_hangs_up_leaves_nothing(api, database):
    body = a_form(('name="file"; filename="a.txt"', b"x" * 1000), end="")
    arriving = iter([{"type": "http.request", "body": body, "more_body": True}, {"type": "http.disconnect"}])
    headers = [(b"authorization", api.headers["authorization"].encode()), (b"content-type", FORM["Content-Type"].encode())]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/attachments", "raw_path": b"", "query_string": b"", "headers": headers}
    sent = []

    async def receive():
        return next(arriving)

    async def send(message):
        sent.append(message)

    await api.app(scope | {"http_version": "1.1", "scheme": "http", "server": ("vestnik", 80), "client": ("127.0.0.1", 1), "root_path": ""}, receive, send)

    assert sent[0]["status"] == 400
    assert await counted(database, Attachment) == 0


async def test_uploads_and_deletions_are_in_the_audit(api, database):
    meta = await uploaded(api, files.PDF, "Иванов.pdf")
    await uploaded(api, files.PDF)
    await api.delete(f"/attachments/{meta['id']}")

    async with database.transaction() as session:
        records = (await session.scalars(sa.select(AuditRecord).order_by(AuditRecord.id))).all()
    assert [(record.action, record.object) for record in records] == [
        ("attachment.create", f"attachment:{meta['id']}"),
        ("attachment.delete", f"attachment:{meta['id']}"),
    ]
    assert records[0].changes["sha256"] == meta["sha256"]
    assert "Иванов" not in str(records[0].changes)


async def test_who_may_not_write_templates_may_not_upload(as_role):
    viewer, billing = await as_role("viewer"), await as_role("billing")

    assert (await viewer.post("/attachments", files={"file": ("a.pdf", files.PDF)})).status_code == 403
    assert (await viewer.delete(f"/attachments/{uuid4()}")).status_code == 403
    assert (await viewer.get("/attachments")).status_code == 200
    assert (await billing.get("/attachments")).status_code == 403
