"""Labels of calls: what can be one, and how they travel."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs import message, task
from jobs.exceptions import ConfigurationError, MalformedMessage
from tests.unit.message.wire import a_message, changed, there_and_back


@task(label="nightly")
def labelled() -> None: ...


@task
def plain() -> None: ...


def headers(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(raw)["headers"]
    return found


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (7, "must be text"),
        ("x" * 201, "1 to 200 characters"),
        (" import", "without white space at its ends"),
        ("two\nlines", "one line"),
        ("a\0b", "NUL"),
        ("\ud800", "UTF-8"),
    ],
)
def test_what_is_no_label_is_told_at_the_call(label: Any, why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        plain.message((), {}, label=label)
    with pytest.raises(ConfigurationError, match=why):
        task(label=label, name="never.made")(lambda: None)


def test_the_call_decides_then_the_task() -> None:
    assert labelled.message((), {}).label == "nightly"
    assert labelled.message((), {}, label="now").label == "now"
    assert labelled.message((), {}, label="").label == ""
    assert plain.message((), {}).label == ""
    assert plain.message((), {}, label="x" * 200).label == "x" * 200


def test_it_is_a_header_of_its_own() -> None:
    raw = message.encode(a_message(label="import 2026-11"))
    assert headers(raw)["jobs_label"] == "import 2026-11"
    assert there_and_back(a_message(label="import 2026-11")).label == "import 2026-11"
    back = message.decode(raw, "default")
    assert back.headers == {}
    # A call without one is as long as before.
    assert "jobs_label" not in headers(message.encode(a_message()))


def test_the_caller_can_not_set_it_among_the_headers() -> None:
    assert "jobs_label" not in headers(message.encode(a_message(own_headers={"jobs_label": "x"})))


def test_it_stays_through_attempts_and_copies() -> None:
    sent = a_message(label="import")
    assert message.first_attempt(sent).label == "import"
    sent.copies = ("other",)
    assert [one.label for one in message.spread(sent)] == ["import", "import"]


def test_a_label_that_no_column_holds_is_malformed() -> None:
    for label in ("x" * 201, "a\0b", 7):
        raw = json.dumps(changed("headers", jobs_label=label)).encode()
        with pytest.raises(MalformedMessage) as caught:
            message.decode(raw, "default", trusted=True)
        assert isinstance(caught.value.call, message.Message)
        assert caught.value.call.label == ""
