"""Model signals that send tasks at commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.db.models.signals import ModelSignal, post_delete, post_save, pre_save

from jobs import Task
from jobs.models import TaskResult
from tests.models import Author, Book, Run
from tests.tasks import greet_author, index_book, trace
from tests.workers import on_redis, rolled_back, work

pytestmark = pytest.mark.django_db(transaction=True)

Connect = Callable[..., None]


@pytest.fixture
def on(broker_url: str) -> Iterator[Connect]:
    """`Task.on`, undone at the end of the test."""
    signals: list[ModelSignal] = [pre_save, post_save, post_delete]
    before = [(signal, list(signal.receivers)) for signal in signals]

    def connect(task: Task[..., Any], signal: ModelSignal, **options: Any) -> None:
        task.on(signal, **options)

    yield connect
    for signal, receivers in before:
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


def sent() -> list[str]:
    """Arguments of what waits, and of what has run."""
    work()
    return list(Run.objects.order_by("id").values_list("label", flat=True))


def test_several_saves_in_a_transaction_send_once(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    with transaction.atomic():
        author = Author.objects.create(name="Ann")
        author.save()
        with transaction.atomic():
            author.save()
        assert on_redis() == (0, 0)
    assert on_redis() == (1, 0)
    assert sent() == [f"author {author.pk}"]


def test_outside_a_transaction_each_save_sends(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    author = Author.objects.create(name="Ann")
    author.save()
    assert sent() == [f"author {author.pk}"] * 2


def test_rolled_back_nothing_is_sent(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    with rolled_back():
        Author.objects.create(name="Ann")
    assert (on_redis(), TaskResult.objects.count()) == ((0, 0), 0)


def test_a_rolled_back_savepoint_does_not_use_up_the_once(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    author = Author(name="Ann", pk=5)
    with transaction.atomic():
        with rolled_back():
            author.save()
        author.save()
    assert sent() == ["author 5"]


def test_different_rows_and_different_models(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    on(index_book, post_save, sender="tests.Book")
    with transaction.atomic():
        Author.objects.create(pk=1, name="Ann")
        Book.objects.create(pk=1, title="One")
        Author.objects.create(pk=2, name="Bob")
    assert sent() == ["author 1", "book 1", "author 2"]


def test_one_task_for_two_models_with_equal_keys(on: Connect) -> None:
    def label(instance: Any, **_: Any) -> tuple[str]:
        return (f"{type(instance).__name__} {instance.pk}",)

    on(trace, post_save, sender=Author, args=label)
    on(trace, post_save, sender=Book, args=label)
    with transaction.atomic():
        Author.objects.create(pk=1, name="Ann")
        Book.objects.create(pk=1, title="One")
    assert sent() == ["Author 1", "Book 1"]


def test_one_trigger_for_all_models(on: Connect) -> None:
    ours = (Author, Book)
    on(
        trace,
        post_save,
        when=lambda instance, **_: isinstance(instance, ours),
        args=lambda instance, **_: (f"{type(instance).__name__} {instance.pk}",),
    )
    with transaction.atomic():
        Author.objects.create(pk=1, name="Ann")
        Book.objects.create(pk=1, title="One")
    assert sent() == ["Author 1", "Book 1"]


def test_a_condition(on: Connect) -> None:
    on(greet_author, post_save, sender=Author, when=lambda created, **_: created)
    author = Author.objects.create(pk=3, name="Ann")
    author.save()
    assert sent() == ["author 3"]


def test_several_signals_of_one_task(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    on(greet_author, post_delete, sender=Author)
    with transaction.atomic():
        author = Author.objects.create(pk=4, name="Ann")
        author.delete()
    assert sent() == ["author 4", "author 4"]


def test_connecting_again_replaces(on: Connect) -> None:
    on(greet_author, post_save, sender=Author)
    on(greet_author, post_save, sender=Author)
    Author.objects.create(pk=6, name="Ann")
    assert sent() == ["author 6"]


def test_new_rows_without_a_key_are_told_apart(on: Connect) -> None:
    """Before the save a row has no key yet."""
    on(trace, pre_save, sender=Author, args=lambda instance, **_: (instance.name,))
    with transaction.atomic():
        for name in ("Ann", "Bob"):
            Author.objects.create(name=name)
    assert sent() == ["Ann", "Bob"]


def test_loaddata_sends_nothing(on: Connect, tmp_path: Path) -> None:
    on(greet_author, post_save, sender=Author)
    fixture = tmp_path / "authors.json"
    fixture.write_text('[{"model": "tests.author", "pk": 1, "fields": {"name": "Ann"}}]')
    call_command("loaddata", str(fixture), verbosity=0)
    assert Author.objects.count() == 1
    assert sent() == []
