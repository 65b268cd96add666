"""The verbs of each page: under one name each, with permissions and texts that exist."""

from __future__ import annotations

import pytest
from django.contrib.auth import get_permission_codename
from django.db.models import Model

from jobs.admin import queues, results, schedules
from jobs.admin.deadletters.verbs import ALL_LETTERS_VERBS, LETTER_VERBS
from jobs.admin.queues.verbs import ALL_CALLS_VERBS, CALL_VERBS, QUEUE_VERBS
from jobs.admin.tasks.verbs import rate, run
from jobs.admin.verbs import Verb
from jobs.admin.workers.verbs import VERBS as WORKERS
from jobs.models import Queues, Schedule, TaskResult, Tasks, Workers

RESULTS, SCHEDULES = results.admin.VERBS, schedules.admin.VERBS
LETTERS = (*LETTER_VERBS, *ALL_LETTERS_VERBS)
CALLS = {
    verb.name: verb
    for lists in (CALL_VERBS, ALL_CALLS_VERBS)
    for verbs in lists.values()
    for verb in verbs
}
#: Those for which one needs the permission of the results' page.
REVOKING = ("revoke", "terminate", "revoke_all", "terminate_all")
TASKS = (queues.admin.pause_task, queues.admin.resume_task)
OF: list[tuple[Verb, type[Model]]] = [
    *((verb, TaskResult) for verb in RESULTS),
    *((verb, Schedule) for verb in SCHEDULES),
    *((verb, Queues) for verb in (*QUEUE_VERBS, *TASKS, *LETTERS)),
    *((verb, TaskResult if name in REVOKING else Queues) for name, verb in CALLS.items()),
    *((verb, Tasks) for verb in (run, rate)),
    *((verb, Workers) for verb in WORKERS),
]


@pytest.mark.parametrize(("verb", "model"), OF, ids=lambda value: getattr(value, "name", ""))
def test_its_permission_exists(verb: Verb, model: type[Model]) -> None:
    meta = model._meta
    known = {get_permission_codename(name, meta) for name in meta.default_permissions}
    known |= {codename for codename, _name in meta.permissions}
    assert verb.permission in known


@pytest.mark.parametrize(
    "verbs", [RESULTS, SCHEDULES, (*QUEUE_VERBS, *TASKS, *CALLS.values()), LETTERS, WORKERS]
)
def test_names_are_taken_once(verbs: tuple[Verb, ...]) -> None:
    names = [verb.name for verb in verbs]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    "verb", [*RESULTS, *SCHEDULES, *LETTERS, *CALLS.values()], ids=lambda verb: verb.name
)
def test_its_texts_take_a_number(verb: Verb) -> None:
    for n in (1, 2):
        values = {"n": n, "queue": "high", "verb": verb.title}
        texts = [verb.done, verb.left_out, verb.gone]
        texts += [verb.question.text] if verb.question else []
        for text in texts:
            assert not text or str(n) in text % values


def test_a_title_asks_nothing() -> None:
    assert [verb.title for verb in RESULTS] == ["Run again now", "Revoke"]


@pytest.mark.parametrize("verb", WORKERS, ids=lambda verb: verb.name)
def test_texts_about_a_worker(verb: Verb) -> None:
    texts = [verb.done, *([verb.question.text] if verb.question else [])]
    for text in texts:
        assert "“mail-1”" in text % {"n": 1, "worker": "mail-1", "grace": 30.0, "queue": "low"}
