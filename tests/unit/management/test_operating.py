"""What all commands do with their output."""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import Any

import pytest
from django.core.management import CommandError
from django.db import OperationalError

from jobs.management.operating import JobsCommand, Progress, not_empty, printable, seconds


class Says(JobsCommand):
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write("a\tb\nred: \x1b[31m, title: \x1b]0;x\x07, \x9b31m é 中")
        self.stderr.write("back\b", self.style.WARNING)


SAID = "a\tb\nred: \\x1b[31m, title: \\x1b]0;x\\x07, \\x9b31m é 中\n"


def test_a_terminal_obeys_nothing_of_it() -> None:
    out, err = io.StringIO(), io.StringIO()
    command = Says(stdout=out, stderr=err, no_color=True)  # type: ignore[arg-type]
    command.execute(force_color=False, no_color=False, skip_checks=True)
    assert (out.getvalue(), err.getvalue()) == (SAID, "back\\x08\n")


class Reads(JobsCommand):
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        raise OperationalError("no such table: jobs_taskresult")


def test_a_database_that_is_away_is_told_in_a_sentence() -> None:
    with pytest.raises(CommandError, match=r"run manage\.py migrate: no such table"):
        Reads().execute(force_color=False, no_color=True, skip_checks=True)


def test_as_another_program_calls_it() -> None:
    out, err = io.StringIO(), io.StringIO()
    Says().execute(stdout=out, stderr=err, force_color=True, no_color=False, skip_checks=True)
    assert out.getvalue() == SAID
    assert "back\\x08\n" in err.getvalue()
    assert err.getvalue().startswith("\x1b[")  # the command's own colours stay


def test_progress_draws_on_its_line() -> None:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    command = Says(stderr=out)  # type: ignore[arg-type]
    progress = Progress(command.stderr)  # type: ignore[arg-type]
    progress._next = 0.0
    progress.tell("1 of 2 \x1b[2J")
    progress.clear()
    assert out.getvalue().startswith("\r1 of 2 \\x1b[2J\r")


def test_printable_escapes_what_turns_a_line_round_and_what_no_stream_takes() -> None:
    assert printable("a\u202egpj.exe\u2066 \udcff") == r"a\u202egpj.exe\u2066 \udcff"


def test_options_that_are_empty_or_no_time() -> None:
    assert not_empty("x") == "x"
    with pytest.raises(argparse.ArgumentTypeError, match="is empty"):
        not_empty("")
    assert (seconds("1.5"), seconds("inf")) == (1.5, float("inf"))
    for wrong in ("nan", "-1", "", "soon"):
        with pytest.raises(argparse.ArgumentTypeError, match="not a number of seconds"):
            seconds(wrong)


def test_printable_leaves_text_as_it_is() -> None:
    assert printable("a\n\tb é 中 \U0001f600 \\x1b") == "a\n\tb é 中 \U0001f600 \\x1b"


def test_it_ends_quietly_when_nobody_reads_its_output(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as ended:
            Says().run_from_argv(["manage.py", "says"])
        assert ended.value.code == 141
        unread.write("more")
        unread.flush()  # to nowhere, as the interpreter does at its end
        monkeypatch.undo()


class Breaks(JobsCommand):
    requires_system_checks = []

    def handle(self, *args: Any, **options: Any) -> None:
        raise BrokenPipeError("of something else")


def test_another_broken_pipe_is_an_error() -> None:
    with pytest.raises(BrokenPipeError, match="of something else"):
        Breaks().run_from_argv(["manage.py", "breaks"])
