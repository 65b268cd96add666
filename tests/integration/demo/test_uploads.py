"""The upload pages: what the view stores and sends, and what the visitor reads of it."""

from __future__ import annotations

import uuid

import pytest
import redis
from django.contrib.auth.models import Permission, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.db.models.signals import post_save
from django.test import Client
from django.urls import reverse

from jobs import State, broker, conf, control
from jobs.models import TaskResult
from jobsite.demo.forms import MAX_BYTES
from jobsite.demo.models import Row, Upload
from jobsite.demo.tasks import finish, store_chunk, summarise
from tests.integration.demo.reading import read
from tests.workers import put, work

pytestmark = pytest.mark.django_db


def send(client, content: bytes, name: str = "table.csv"):
    return client.post("/uploads/", {"file": SimpleUploadedFile(name, content)})


def uploaded(client, content: bytes, name: str = "table.csv") -> Upload:
    """The upload that the page has made, with its tasks run here."""
    response = send(client, content, name)
    assert response.status_code == 302, response.context["form"].errors
    read(Upload.objects.get().pk)
    upload = Upload.objects.get()
    assert response.url == upload.get_absolute_url()
    return upload


def state(client, upload: Upload) -> dict:
    return client.get(reverse("demo:upload_state", args=[upload.pk])).json()


def test_the_view_stores_the_file_and_sends_the_task(client):
    response = send(client, b"a,b\n1,2\n")
    upload = Upload.objects.get()
    result = TaskResult.objects.get()
    assert upload.task_id == result.id
    assert result.task == "jobsite.demo.tasks.summarise"
    page = client.get(response.url)
    assert page.context["live"].finished is False
    assert "Waiting for a worker." in page.text
    assert state(client, upload)["finished"] is False


def test_the_outcome_is_shown_as_tables_and_bars(client):
    upload = uploaded(client, b"city,height\nRome,21\nRome,139\nOslo,23.5\n")
    page = client.get(upload.get_absolute_url())
    assert "Done: 3 rows." in page.text
    assert ">61.17<" in page.text
    assert '<rect width="50"' in page.text
    assert state(client, upload)["finished"] is True
    assert list(upload.rows.values_list("line", "values")) == [
        (2, ["Rome", "21"]),
        (3, ["Rome", "139"]),
        (4, ["Oslo", "23.5"]),
    ]
    assert bytes(upload.content) == b""


def test_the_sample_is_read_in_chunks_and_summarised(client):
    response = client.post("/uploads/sample/")
    upload = Upload.objects.get()
    assert read(upload.pk) == {"stage": "done", "rows": 10_112}
    assert TaskResult.objects.filter(task=store_chunk.name).count() == 11
    assert Row.objects.count() == 10_112
    assert "Done: 10,112 rows." in client.get(response.url).text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "This is not a text file."),
        ("a\nZürich\n".encode("latin-1"), "Line 2 is not UTF-8 text."),
        (b'a,b\n1,2\n"open,3\n', "Line 3 is not CSV"),
        (b"\na,b\n", "The first line is empty."),
        (b"a,b\n", "There are no rows below the first line"),
        (b"a,b\n1\n2\n", "No row has as many values"),
    ],
    ids=["not text", "encoding", "not CSV", "no header", "no rows", "nothing fits"],
)
def test_a_file_that_cannot_be_used_is_a_clear_message_and_leaves_no_rows(client, content, words):
    upload = uploaded(client, content)
    assert upload.stage == Upload.Stage.REFUSED
    assert not upload.rows.exists()
    page = client.get(upload.get_absolute_url())
    assert page.status_code == 200
    assert words in page.text
    assert state(client, upload)["finished"] is True


def test_a_late_fault_is_found_before_anything_is_stored(client):
    upload = uploaded(client, b"a\n" + b"1\n" * 1200 + b'"open')
    assert upload.problem_line == 1202
    assert TaskResult.objects.get().task == summarise.name
    assert not Row.objects.exists()


def test_ragged_lines_are_named_and_the_rest_is_summarised(client):
    page = client.get(uploaded(client, b"a,b\n1,2\n3\n4,5,6\n").get_absolute_url())
    assert "Done: 1 row." in page.text
    assert "2 lines do not have one value for each column" in page.text
    assert "Line 3: 1 value for 2 columns" in page.text
    assert "Line 4: 3 values for 2 columns" in page.text


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "table.csv", "The file is empty."),
        (b"x" * (MAX_BYTES + 1), "table.csv", "at most 5.0\xa0MB are taken."),
        (b"a,b\n1,2\n", "table.exe", "File extension “exe” is not allowed."),
    ],
    ids=["empty", "too large", "extension"],
)
def test_what_the_form_refuses_is_said_beside_the_field_and_nothing_is_sent(
    client, content, name, words
):
    response = send(client, content, name)
    assert response.status_code == 200
    assert words in response.text
    assert not Upload.objects.exists()
    assert not TaskResult.objects.exists()


def test_no_file_chosen(client):
    response = client.post("/uploads/")
    assert "Choose a file first." in response.text


def test_what_the_file_holds_is_escaped(client):
    evil = "<script>alert(1)</script>"
    upload = uploaded(client, f"{evil},n\n{evil},1\n{evil},2\n".encode(), "<b>.csv")
    for text in (
        client.get(upload.get_absolute_url()).text,
        state(client, upload)["html"],
    ):
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text
    assert "<b>.csv" not in client.get(upload.get_absolute_url()).text


def test_the_name_of_a_file_never_becomes_a_path(client):
    upload = uploaded(client, b"a\n1\n", "../../etc/passwd.csv")
    assert upload.file_name == "passwd.csv"


def test_an_upload_is_found_only_by_its_own_address(client):
    upload = uploaded(client, b"a\n1\n")
    assert client.get(reverse("demo:upload", args=[uuid.uuid4()])).status_code == 404
    assert str(upload.pk) not in Client().get("/uploads/").text
    assert "no-store" in client.get(upload.get_absolute_url())["Cache-Control"]


@pytest.mark.parametrize("path", ["/uploads/", "/uploads/sample/", "/sign-up/"])
def test_forms_need_their_token(path):
    assert Client(enforce_csrf_checks=True).post(path).status_code == 403


def test_the_sample_is_taken_by_post_alone(client):
    assert client.get("/uploads/sample/").status_code == 405


def test_a_task_that_failed_ends_the_waiting(client):
    send(client, b"a\n1\n")
    TaskResult.objects.update(state=State.FAILURE)
    upload = Upload.objects.get()
    found = state(client, upload)
    assert found["finished"] is True
    assert found["line"] == "A task that reads the file has failed."


def test_staff_who_may_see_results_get_a_link_to_theirs(client):
    upload = uploaded(client, b"a\n1\n")
    link = f"/admin/jobs/taskresult/{upload.task_id}/change/"
    user = User.objects.create_user("lee", is_staff=True)
    client.force_login(user)
    assert link not in client.get(upload.get_absolute_url()).text
    user.user_permissions.add(Permission.objects.get(codename="view_taskresult"))
    assert link in client.get(upload.get_absolute_url()).text


@pytest.mark.django_db(transaction=True)
def test_a_view_that_is_rolled_back_sends_nothing(client, broker_url):
    def fail(update_fields, **_):
        if update_fields:  # the second save, after the task was sent
            raise RuntimeError("after delay()")

    post_save.connect(fail, sender=Upload)
    try:
        with pytest.raises(RuntimeError, match="after delay"):
            send(client, b"a\n1\n")
    finally:
        post_save.disconnect(fail, sender=Upload)
    assert not Upload.objects.exists()
    assert not TaskResult.objects.exists()
    with redis.Redis.from_url(broker_url) as server:
        assert server.keys() == []


@pytest.mark.django_db(transaction=True)
def test_a_committed_upload_puts_its_message_on_the_broker(client, broker_url):
    send(client, b"a\n1\n")
    with redis.Redis.from_url(broker_url) as server:
        assert server.llen("default") == 1


# --------------------------------------------------------------------------- the chord

THREE_CHUNKS = b"n\n" + b"".join(b"%d\n" % number for number in range(2500))


def split(client, content: bytes) -> Upload:
    """An upload whose chord is sent, and waits for a worker."""
    send(client, content)
    upload = Upload.objects.get()
    with redis.Redis.from_url(conf.get().broker_url) as server:
        server.flushdb()  # the task is called here instead
    with transaction.atomic():
        summarise(upload.pk)
    return Upload.objects.get()


@pytest.mark.django_db(transaction=True)
def test_the_bar_follows_the_members_of_the_chord(client, broker_url):
    upload = split(client, THREE_CHUNKS)
    found = state(client, upload)
    assert found["line"] == "Reading: 0 of 3 parts, 0 rows."
    assert '<progress max="3" value="0"' in found["html"]

    store_chunk(upload.pk, 1000)
    TaskResult.objects.filter(group_id=upload.group_id, group_index=1).update(state=State.SUCCESS)
    found = state(client, upload)
    assert found["line"] == "Reading: 1 of 3 parts, 1,000 rows."
    assert '<progress max="3" value="1"' in found["html"]


@pytest.mark.django_db(transaction=True)
def test_each_task_run_twice_by_a_worker_has_done_its_work_once(client, broker_url):
    upload = split(client, b"a,b\n" + b"1,2\n" * 1000 + b"3\n")
    for raw in list(broker.get().scan("default")):
        put(raw)
    work()
    upload.refresh_from_db()
    assert (upload.summary["rows"], upload.summary["errors"]) == (1000, 1)
    assert upload.rows.count() == 1000
    assert TaskResult.objects.filter(task=finish.name).count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_upload_is_split_once_and_read_to_its_end(client, broker_url):
    send(client, THREE_CHUNKS)
    (raw,) = broker.get().scan("default")
    put(raw)
    work()
    assert state(client, Upload.objects.get())["line"] == "Done: 2,500 rows."
    assert TaskResult.objects.filter(task=store_chunk.name).count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_failed_chunk_is_named_and_run_again_lets_the_rest_go_on(client, broker_url):
    upload = split(client, THREE_CHUNKS)
    in_the_way = Row.objects.create(upload=upload, line=1500, values=["x"])
    work()
    found = state(client, upload)
    assert found["finished"] is True
    assert found["line"] == "A task that reads the file has failed."
    assert "Part 2 of the file, from row 1,001 on, could not be stored." in found["html"]
    assert found["html"].count("<li>") == 1
    assert "/admin/" not in found["html"]

    failed = TaskResult.objects.get(task=store_chunk.name, state=State.FAILURE)
    client.force_login(User.objects.create_superuser("root"))
    assert f'href="/admin/jobs/taskresult/{failed.pk}/change/"' in state(client, upload)["html"]

    in_the_way.delete()
    assert control.retry(failed.pk)
    assert state(client, upload)["line"] == "Reading: 2 of 3 parts, 1,500 rows."
    work()
    assert state(client, upload)["line"] == "Done: 2,500 rows."
