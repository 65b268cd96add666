"""The sign-up pages: the model's trigger, the mail, and what the visitor reads of it."""

from __future__ import annotations

import django
import pytest
from django.core import mail
from django.db import transaction
from django.urls import reverse

from jobs.models import TaskResult
from jobsite.demo.models import SentMail, Subscriber
from jobsite.demo.tasks import send_welcome

pytestmark = pytest.mark.django_db

ADA = {"name": "Ada", "email": "ada@example.org"}


def sign_up(client, **changes) -> Subscriber:
    response = client.post("/sign-up/", ADA | changes)
    subscriber = Subscriber.objects.get()
    assert response.url == subscriber.get_absolute_url()
    return subscriber


def state(client, subscriber: Subscriber) -> dict:
    return client.get(reverse("demo:subscriber_state", args=[subscriber.pk])).json()


def mail_server_is_away(settings) -> None:
    backend = "django.core.mail.backends.smtp.EmailBackend"
    nothing_listens = {"host": "127.0.0.1", "port": 1}
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": nothing_listens}}
    else:
        settings.EMAIL_BACKEND = backend
        settings.EMAIL_HOST, settings.EMAIL_PORT = nothing_listens.values()


def test_signing_up_sends_the_welcome_and_the_page_shows_it(client):
    subscriber = sign_up(client)
    result = TaskResult.objects.get()
    assert (result.task, result.queue) == ("jobsite.demo.tasks.send_welcome", "high")
    assert state(client, subscriber) | {"html": ""} == {
        "line": "The mail is on its way.",
        "html": "",
        "finished": False,
    }

    assert send_welcome(subscriber.pk) == "Welcome!"
    (sent,) = mail.outbox
    assert (sent.to, sent.subject) == (["ada@example.org"], "Welcome!")
    assert sent.body.startswith("Hello Ada,")
    assert "Hello Ada," in client.get(subscriber.get_absolute_url()).text
    assert state(client, subscriber)["finished"] is True


def test_the_mail_is_sent_once_however_often_the_task_runs(client):
    subscriber = sign_up(client)
    send_welcome(subscriber.pk)
    assert send_welcome(subscriber.pk) == "Welcome!"
    assert len(mail.outbox) == 1


def test_a_mail_that_cannot_be_sent_is_not_recorded_as_sent(client, settings):
    subscriber = sign_up(client)
    mail_server_is_away(settings)
    with pytest.raises(OSError, match="refused"):
        send_welcome(subscriber.pk)
    assert not SentMail.objects.exists()
    assert "The mail could not be sent." in client.get(subscriber.get_absolute_url()).text
    assert state(client, subscriber)["finished"] is True


def test_changing_a_subscriber_sends_nothing_more(client):
    subscriber = sign_up(client)
    subscriber.name = "Grace"
    subscriber.save()
    assert TaskResult.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_subscriber_who_is_rolled_back_gets_no_mail(broker_url):
    with pytest.raises(RuntimeError), transaction.atomic():  # noqa: PT012
        Subscriber.objects.create(**ADA)
        raise RuntimeError
    assert not TaskResult.objects.exists()


@pytest.mark.parametrize("wrong", [{"name": ""}, {"email": "nobody"}, {"name": "x" * 81}])
def test_a_wrong_form_is_shown_again_and_sends_nothing(client, wrong):
    response = client.post("/sign-up/", ADA | wrong)
    assert response.status_code == 200
    assert 'aria-invalid="true"' in response.text
    assert not TaskResult.objects.exists()


def test_a_name_is_escaped(client):
    subscriber = sign_up(client, name="<script>x</script>")
    send_welcome(subscriber.pk)
    assert "<script>x" not in client.get(subscriber.get_absolute_url()).text
    assert "<script>x" not in state(client, subscriber)["html"]
