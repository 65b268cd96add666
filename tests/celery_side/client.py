"""A client of the real Celery, which has no code of the tasks that it sends.

`python client.py REDIS_URL [NAME …]` runs the checks below, all or those named, against a worker
that serves the queue `foreign`; the exit status is 1 if one of them fails. Each is written from
what Celery documents of its clients.
"""

from __future__ import annotations

import sys
import time
import traceback
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Celery, chain, chord, group, states
from celery.canvas import chunks, xmap, xstarmap
from celery.exceptions import (
    ChordError,
    ImproperlyConfigured,
    MaxRetriesExceededError,
    Reject,
    TaskRevokedError,
)
from celery.result import AsyncResult, GroupResult, allow_join_result

URL = sys.argv[1]
#: Seconds that a call may take on a slow machine.
PATIENCE = 60

app = Celery("client", broker=URL, backend=URL, set_as_current=True)
app.conf.task_default_queue = "foreign"
app.conf.broker_connection_retry_on_startup = True


def s(name: str, *args: Any, **kwargs: Any) -> Any:
    """A call of one of the tasks in tests/for_celery.py."""
    return app.signature(f"tests.for_celery.{name}", args=args, kwargs=kwargs)


def si(name: str, *args: Any) -> Any:
    return s(name, *args).set(immutable=True)


def send(call: Any, **options: Any) -> Any:
    return call.apply_async(**options)


def get(result: Any) -> Any:
    return result.get(timeout=PATIENCE)


def error_of(result: Any) -> Any:
    """The exception with which a call has ended."""
    return result.get(timeout=PATIENCE, propagate=False)


def until(condition: Callable[[], Any]) -> Any:
    ends = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < ends, "it doesn't come"
        time.sleep(0.01)
    return found


def raised(kind: type[BaseException], act: Callable[[], Any]) -> Any:
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"{kind} was not raised")


def label() -> str:
    return uuid.uuid4().hex


# ------------------------------------------------------------------------------- forms of messages


def check_compressed_messages() -> None:
    for method in ("zlib", "gzip"):
        result = send(chain(s("same", "é" * 100_000), s("same")), compression=method)
        assert get(result) == "é" * 100_000
    done = label()
    retried = send(s("retry_until", done), compression="zlib")
    until(lambda: retried.state == states.RETRY)
    get(send(s("note", done)))
    assert get(retried) >= 1


def check_version_1_of_the_protocol() -> None:
    app.conf.task_protocol = 1
    try:
        assert get(send(s("add", 1, y=2), countdown=0.1)) == 3
        assert get(send(chord([s("add", 1, 1), s("add", 2, 2)], s("total")))) == 6
        result = send(s("add", 1, 2), link=s("add", 10))
        get(result)
        assert get(result.children[0]) == 13
        error = send(s("fail"), link_error=s("same"))
        assert isinstance(error_of(error), ValueError)
        past = datetime.now(UTC) - timedelta(seconds=1)
        raised(TaskRevokedError, lambda: get(send(s("add", 1, 2), expires=past)))
    finally:
        app.conf.task_protocol = 2


# ------------------------------------------------------------------------------ results of calls


def check_a_result() -> None:
    result = send(s("add", 1, 2))
    assert get(result) == 3
    assert result.state == states.SUCCESS
    assert result.successful()
    assert result.children == []
    assert result.traceback is None
    assert abs(result.date_done - datetime.now(UTC)) < timedelta(seconds=PATIENCE)
    # Somebody who only knows the id reads the same.
    again = AsyncResult(result.id)
    assert (again.get(timeout=PATIENCE), again.date_done) == (3, result.date_done)


def check_results_of_any_type() -> None:
    for value in (None, "é", [1, [2]], {"a": {"b": 1.5}}, 10**30, False):
        assert get(send(s("same", value))) == value
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert get(send(s("same", moment))) == moment
    assert get(send(s("same", uuid.UUID(int=5)))) == uuid.UUID(int=5)


def check_a_result_is_kept_for_a_day() -> None:
    result = send(s("add", 1, 2))
    get(result)
    assert 86_000 < app.backend.client.ttl(f"celery-task-meta-{result.id}") <= 86_400


def check_a_failure() -> None:
    result = send(s("fail", text="broken"))
    error = raised(ValueError, lambda: get(result))
    assert error.args == ("broken",)
    assert result.state == states.FAILURE
    assert result.failed()
    assert "in fail" in result.traceback
    assert error_of(result).args == ("broken",)


def check_a_result_that_is_forgotten() -> None:
    result = send(s("add", 1, 2))
    get(result)
    result.forget()
    assert AsyncResult(result.id).state == states.PENDING


def check_an_ignored_result() -> None:
    done = label()
    result = send(chain(s("forgetful"), si("note", done)))
    get(result)
    assert AsyncResult(result.parent.id).state == states.PENDING


def check_started_and_retried() -> None:
    done = label()
    running, retried = send(s("started_until", done)), send(s("retry_until", done))
    until(lambda: running.state == states.STARTED)
    assert "hostname" in running.info
    until(lambda: retried.state == states.RETRY)
    assert isinstance(retried.info, KeyError)
    assert retried.info.args == (repr(done),)
    get(send(s("note", done)))
    assert get(running) == done
    assert get(retried) >= 1


def check_a_state_of_its_own() -> None:
    done = label()
    result = send(s("tell_until", done))
    until(lambda: result.state == "PROGRESS")
    assert result.info == {"done": 1, "é": [None]}
    get(send(s("note", done)))
    assert get(result) == done
    assert result.state == states.SUCCESS


def check_retries_with_other_arguments() -> None:
    """What `retry` isn't given stays, by name or by place."""
    assert get(send(s("retry_by", x=1, y=2, how={"args": [5]}))) == [5, 2]
    assert get(send(s("retry_by", 1, 2, how={"kwargs": {"x": 5, "how": None}}))) == [5, 2]


def check_no_attempt_left() -> None:
    raised(MaxRetriesExceededError, lambda: get(send(s("retry_in_vain"))))


def check_rejected() -> None:
    result = send(s("reject"))
    assert isinstance(error_of(result), Reject)
    assert result.state == states.FAILURE


def check_expired_and_revoked() -> None:
    past = send(s("add", 1, 2), expires=datetime.now(UTC) - timedelta(seconds=1))
    error = raised(TaskRevokedError, lambda: get(past))
    assert error.args == ("expired",)
    assert past.state == states.REVOKED
    ignored = send(s("ignore"))
    assert isinstance(error_of(ignored), TaskRevokedError)


def check_wrong_arguments() -> None:
    raised(TypeError, lambda: get(send(s("add", 1, 2, 3, 4))))


def check_an_atomic_task() -> None:
    done = label()
    assert get(send(s("note_whole", done))) == done


def check_a_countdown() -> None:
    assert get(send(s("add", 1, 2), countdown=0.1)) == 3


def check_a_replaced_call() -> None:
    result = send(s("replace_by", {"args": [4, 5]}))
    assert get(result) == 9


def check_how_often_a_call_was_replaced() -> None:
    assert get(send(s("replace_times", 2, []))) == [0, 1, 2]


def check_a_call_replaced_by_nothing() -> None:
    raised(ImproperlyConfigured, lambda: get(send(s("replace_by_nothing"))))


def check_calls_of_a_task_are_its_children() -> None:
    result = send(s("send_more"))
    assert get(result) == "sent"
    one, several = result.children
    assert get(one) == 2
    assert isinstance(several, GroupResult)
    assert get(several) == [0, 2]
    assert {value for _, value in result.collect() if isinstance(value, int)} >= {2, 0}


# --------------------------------------------------------------------------------------- callbacks


def check_callbacks() -> None:
    result = send(s("add", 1, 2), link=s("add", 10))
    assert get(result) == 3
    (follower,) = result.children
    assert get(follower) == 13
    assert [value for _, value in result.collect()] == [3, 13]


def check_several_callbacks() -> None:
    call = s("add", 1, 2)
    call.link(s("add", 10))
    call.link(s("add", 20))
    result = send(call)
    get(result)
    (followers,) = result.children
    assert get(followers) == [13, 23]


def check_errbacks() -> None:
    result = send(s("fail"), link_error=s("same"))
    assert isinstance(error_of(result), ValueError)
    (followers,) = result.children
    assert get(followers) == [result.id]


# ------------------------------------------------------------------------------- chains and groups


def check_a_chain() -> None:
    result = send(chain(s("add", 1, 2), s("add", 3), s("add", 4)))
    assert get(result) == 10
    assert get(result.parent) == 6
    assert get(result.parent.parent) == 3
    first = result.parent.parent
    assert [value for _, value in first.collect()] == [3, 6, 10]
    meta = app.backend.get_task_meta(result.id)
    assert meta["parent_id"] == result.parent.id


def check_a_failed_chain() -> None:
    result = send(chain(s("add", 1, 2), s("fail", text="halfway"), s("add", 3), s("add", 4)))
    error = raised(ValueError, lambda: get(result))
    assert error.args == ("halfway",)
    assert get(result.parent.parent.parent) == 3
    assert result.parent.state == result.parent.parent.state == states.FAILURE


def check_a_rejected_chain() -> None:
    result = send(chain(si("reject"), si("add", 1, 2)))
    assert isinstance(error_of(result), Reject)


def check_an_expired_chain() -> None:
    first = s("add", 1, 2).set(expires=datetime.now(UTC) - timedelta(seconds=1))
    result = send(chain(first, s("add", 3)))
    assert isinstance(error_of(result), TaskRevokedError)


def check_a_signature_that_is_sent_in_two_chains() -> None:
    done = label()
    again = si("note", done).set(task_id=uuid.uuid4().hex)
    for count in (1, 2):
        result = send(chain(s("add", 1, 2), again))
        assert result.id == again.id
        until(lambda: get(send(s("noted"))).count(done) == count)  # noqa: B023  at once
        assert get(result) == done


def check_a_failed_chain_behind_a_chord() -> None:
    header = group(s("add", 1, 1), s("fail", text="member"))
    result = send(chain(header, s("total"), s("add", 1), s("add", 2)))
    assert isinstance(error_of(AsyncResult(result.id)), ChordError)
    # A client is not told that its last call is a member of its header.
    assert "group_id" not in app.backend.get_task_meta(result.id)


def check_many_calls_at_once() -> None:
    results = send(group(s("add", n, 1) for n in range(100)))
    assert get(results) == [n + 1 for n in range(100)]


def check_a_group() -> None:
    result = send(group(s("add", n, n) for n in range(5)))
    assert get(result) == [0, 2, 4, 6, 8]
    assert result.successful()
    assert result.completed_count() == 5
    assert app.backend.get_task_meta(result[0].id)["group_id"] == result.id


def check_a_group_with_a_failure() -> None:
    result = send(group(s("add", 1, 1), s("fail")))
    raised(ValueError, lambda: get(result))
    assert result.failed()
    until(lambda: result.completed_count() == 1)


def check_a_group_that_is_saved() -> None:
    result = send(group(s("add", n, n) for n in range(3)))
    result.save()
    assert get(GroupResult.restore(result.id)) == [0, 2, 4]


def check_a_chain_that_ends_in_a_group() -> None:
    result = send(chain(s("add", 1, 2), group(s("add", 10), s("add", 20))))
    assert get(result) == [13, 23]
    (followers,) = result.parent.children
    assert (followers.id, get(followers)) == (result.id, [13, 23])


def check_map_starmap_and_chunks() -> None:
    add = s("add")
    assert get(send(xstarmap(add, [(1, 2), (3, 4)], app=app))) == [3, 7]
    assert get(send(xmap(s("same"), [1, 2], app=app))) == [1, 2]
    parts = chunks(add, [(n, n) for n in range(5)], 2, app=app).group()
    assert get(send(parts)) == [[0, 2], [4, 6], [8]]


# ------------------------------------------------------------------------------------------ chords


def check_a_chord() -> None:
    result = send(chord([s("add", n, n) for n in range(4)], s("total")))
    assert get(result) == 12
    assert get(result.parent) == [0, 2, 4, 6]


def check_a_chord_of_one_call() -> None:
    assert get(send(chord([s("add", 1, 1)], s("total")))) == 2


def check_a_failed_chord() -> None:
    result = send(chord([s("add", 1, 1), s("fail", text="member")], s("total")))
    # The result itself would raise what the member of its header has raised.
    error = raised(ChordError, lambda: get(AsyncResult(result.id)))
    assert "ValueError('member')" in str(error)


def check_errbacks_of_a_chord() -> None:
    body = s("total").on_error(s("same"))
    result = send(chord([s("add", 1, 1), s("fail")], body))
    assert isinstance(error_of(result), ChordError)
    (followers,) = until(lambda: AsyncResult(result.id).children)
    assert get(followers) == [result.id]


# ------------------------------------------------------------------------- chords in other calls


def check_a_chord_in_a_chain() -> None:
    assert get(send(chain(s("add", 1, 2), chord([s("add", 1), s("add", 2)], s("total"))))) == 9
    assert get(send(chain(s("add", 1, 2), group(s("add", 1), s("add", 2)), s("total")))) == 9
    assert get(send(chain(group(s("add", 1, 1), s("add", 2, 2)), s("total"), s("add", 1)))) == 7


def check_a_chord_in_the_middle_of_a_chain() -> None:
    middle = group(s("add", 1), s("add", 2))
    result = send(chain(s("add", 1, 2), middle, s("total"), s("add", 100)))
    assert get(result) == 109
    assert get(result.parent) == 9


def check_chords_one_after_the_other() -> None:
    first, second = group(s("add", 1), s("add", 2)), group(s("add", 10), s("add", 20))
    result = send(chain(s("add", 1, 2), first, s("total"), second, s("total")))
    assert get(result) == 19 + 29
    begins = group(s("add", 1, 1), s("add", 2, 2))
    result = send(chain(begins, s("total"), second, s("total"), s("add", 1)))
    assert get(result) == 16 + 26 + 1


def check_a_chord_in_a_chord() -> None:
    inner = chord([s("add", 1, 1), s("add", 2, 2)], s("total"))
    assert get(send(chord([inner, s("add", 5, 5)], s("total")))) == 16
    steps = chain(s("add", 1, 2), group(s("add", 1), s("add", 2)), s("total"))
    assert get(send(chord([steps, s("add", 5, 5)], s("total")))) == 19


def check_a_failure_before_a_chord_in_a_chain() -> None:
    result = send(chain(s("fail"), group(s("add", 1), s("add", 2)), s("total")))
    assert isinstance(error_of(AsyncResult(result.id)), ValueError)


def check_a_callback_that_is_a_chord() -> None:
    body = s("total")
    body.set(task_id=uuid.uuid4().hex)
    link = chord([s("add", 1), s("add", 2)], body)
    send(s("add", 1, 2), link=link)
    assert get(AsyncResult(body.id)) == 9


def check_a_member_that_ends_in_a_group() -> None:
    steps = chain(s("add", 1, 1), group(s("add", 1), s("add", 2)))
    result = send(chord([steps, s("add", 5, 5)], s("same")))
    assert get(result) == [[3, 4], 10]


def check_a_group_as_body() -> None:
    result = send(chord([s("add", 1, 1), s("add", 2, 2)], group(s("total"), s("same"))))
    assert get(result) == [6, [2, 4]]


def check_errbacks_of_a_chord_in_the_body_of_a_failed_chord() -> None:
    names = label(), label()
    inner = chord([s("add", 1), s("add", 2)], s("total").on_error(si("note", names[0])))
    bodies = inner, group(inner, s("total").on_error(si("note", names[1])))
    for body in bodies:
        send(chord([s("add", 1, 1), s("fail")], body))
    expected = [names[0], names[0], names[1]]
    until(lambda: sorted(expected) == sorted(n for n in get(send(s("noted"))) if n in names))


def check_a_group_as_body_of_a_failed_chord() -> None:
    result = send(chord([s("add", 1, 1), s("fail")], group(s("total"), s("same"))))
    for one in result.results:
        assert isinstance(error_of(AsyncResult(one.id)), ValueError)


def check_a_chord_behind_the_group_of_a_failed_chord() -> None:
    first = chord([s("add", 1, 1), s("fail")], group(s("total"), s("total")))
    result = send(chain(first, chord([s("add", 1), s("add", 2)], s("total"))))
    assert isinstance(error_of(AsyncResult(result.id)), ValueError)


def check_a_call_added_to_a_chord() -> None:
    assert get(send(chord([s("add_another", 1)], s("total")))) == 102
    assert get(send(chord([s("add_another", 1), s("add", 2, 2)], s("total")))) == 106


def check_parts_of_a_failed_chord() -> None:
    result = send(chord([s("add", 1, 1), s("fail"), s("add", 2, 2)], s("total")))
    error_of(AsyncResult(result.id))
    key = app.backend.get_key_for_group(result.parent.id, ".j")
    parts = [app.backend.decode(part) for part in app.backend.client.zrange(key, 0, -1)]
    assert [part[1] for part in parts] == [one.id for one in result.parent], (key, parts)
    assert [part[2] for part in parts] == ["SUCCESS", "FAILURE", "SUCCESS"]
    assert [part[3] for part in parts if part[2] == "SUCCESS"] == [2, 4]


# ---------------------------------------------------------------------------------------- errbacks


def check_errbacks_of_the_new_style() -> None:
    old, new = s("same"), s("note_error")
    call = s("fail", text="told")
    call.link_error(old)
    call.link_error(new)
    result = send(call)
    error_of(result)
    expected = f"{result.id} {{'text': 'told'}} {ValueError('told')!r} True"
    until(lambda: expected in get(send(s("noted"))))


def check_errbacks_of_the_new_style_of_a_chord() -> None:
    body = s("total").on_error(s("note_error"))
    result = send(chord([s("add", 1, 1), s("fail")], body))
    error_of(AsyncResult(result.id))
    start = f"{result.id} {{}} ChordError("
    until(lambda: any(one.startswith(start) for one in get(send(s("noted")))))


def main() -> int:
    checks = {name: act for name, act in globals().items() if name.startswith("check_")}
    failed = 0
    with allow_join_result():
        for name in sys.argv[2:] or checks:
            began = time.monotonic()
            try:
                checks[name]()
            except BaseException:  # noqa: BLE001  each check is told of
                failed += 1
                sys.stdout.write(f"FAILED {name}\n{traceback.format_exc()}\n")
            else:
                sys.stdout.write(f"passed {name} ({time.monotonic() - began:.2f} s)\n")
            sys.stdout.flush()
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
