"""The blocks of the documentation are right: those that can be run are run."""

from __future__ import annotations

import argparse
import ast
import configparser
import contextlib
import doctest
import inspect
import io
import json
import logging.config
import re
import shlex
import sys
import tomllib
import types
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from django.apps import apps
from django.core import mail
from django.core.checks import run_checks
from django.core.management import call_command, get_commands, load_command_class
from django.db import connection, transaction
from django.db.models import signals as model_signals
from django.dispatch import Signal
from django.template import engines
from pytest_django import Settings

from jobs import AsyncResult, GroupResult, conf, registry, routing, signals, testing
from jobs.schedules import declared
from tests.pages import (
    ELSEWHERE,
    PAGES,
    PROJECT,
    ROOT,
    STAGES,
    Block,
    blocks_of,
    commands_of,
    name_of,
    stage_of,
)
from tests.workers import work

#: Every block that is not run, and why.
EXCUSED = {"docs/deployment.md": ["needs six machines"]}

#: Commands of which only the options are checked.
NOT_RUN = {
    "runworker": "stays",
    "runbeat": "stays",
    "runbroker": "stays",
    "runserver": "stays",
    "rundev": "stays",
    "migrate": "the test's database has its tables",
    "startproject": "writes files",
    "startapp": "writes files",
    "createsuperuser": "asks",
    "jobs_worker": "needs a worker that reports",
    "jobs_partition": "needs PostgreSQL",
    "jobs_from_celery": "needs code that uses Celery",
    "jobs_import_celery_beat": "needs the tables of django-celery-beat",
}

DOCKERFILE = {
    *("FROM", "RUN", "COPY", "ADD", "WORKDIR", "ENV", "ARG", "USER", "EXPOSE", "CMD", "ENTRYPOINT"),
    *("HEALTHCHECK", "LABEL", "STOPSIGNAL", "VOLUME", "SHELL"),
}

SETTINGS = {"JOBS", "TASKS", "LOGGING", "BEAT_SCHEDULE", "INSTALLED_APPS", "DATABASES"}


# ----------------------------------------------------------------------------- one page


@pytest.mark.one_database
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block(
    page: Path,
    broker_url: str,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = [block for block in blocks_of(page) if not block.excuse]
    if name_of(page) in ELSEWHERE:
        assert (ROOT / ELSEWHERE[name_of(page)]).exists()
        blocks = [block for block in blocks if block.language not in ("python", "bash")]
    if not any(block.language in ("python", "sh") for block in blocks):
        for block in blocks:
            check_data(block, broker_url)
        return
    monkeypatch.syspath_prepend(PROJECT)
    settings.JOBS = {**settings.JOBS, "QUEUES": {**settings.JOBS["QUEUES"], "mail": {}, "slow": {}}}
    settings.ROOT_URLCONF = "shop.urls"
    for kind in (AsyncResult, GroupResult):
        monkeypatch.setattr(kind, "get", working(kind.get))
    with as_before(), contextlib.ExitStack() as around:
        module = types.ModuleType("shop.tasks")
        module.__file__ = str(page)
        monkeypatch.setitem(sys.modules, "shop.tasks", module)
        names = vars(module)
        if stage := stage_of(page):
            exec(compile(stage.read_text("utf-8"), stage, "exec"), names)
            if "around" in names:
                around.enter_context(names["around"]())
            take_settings(names, broker_url, settings)
        for block in blocks:
            if block.language == "python":
                run_python(block, names)
                if assigned(block) & SETTINGS:
                    take_settings(names, broker_url, settings)
            elif block.language in ("sh", "shell", "bash", "console"):
                for command in commands_of(block):
                    run_command(command, block)
            else:
                check_data(block, broker_url)
        if "around" not in names:
            work()
        assert problems() == []
        if "afterwards" in names:
            names["afterwards"](types.SimpleNamespace(**names))


def working(method: Callable[..., Any]) -> Callable[..., Any]:
    """The worker runs whenever somebody waits."""

    def wait(*args: Any, **kwargs: Any) -> Any:
        work()
        return method(*args, **kwargs)

    return wait


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Take back what a page registers: tasks, schedules, receivers, handlers of the log."""
    modules = set(sys.modules)
    every: list[Signal] = [
        found
        for module in (signals, model_signals)
        for found in vars(module).values()
        if isinstance(found, Signal)
    ]
    receivers = [list(signal.receivers) for signal in every]
    tables: tuple[dict[str, Any], ...] = (registry.tasks, declared._added)
    kept = [dict(table) for table in tables]
    for table in tables:
        for name in [name for name in table if not name.startswith(("jobs.", "celery."))]:
            del table[name]  # the tasks of other projects
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for signal, before in zip(every, receivers, strict=True):
            signal.receivers[:] = before
            signal.sender_receivers_cache.clear()
        for table, was in zip(tables, kept, strict=True):
            table.clear()
            table.update(was)
        root.handlers[:], root.level = handlers, level
        for name in set(sys.modules) - modules:
            if name.partition(".")[0] == "shop":
                del sys.modules[name]


def take_settings(names: dict[str, Any], url: str, settings: Settings) -> None:
    """Set what the page has assigned so far; its broker is the test's."""
    if jobs := names.get("JOBS"):
        assert conf.parse(jobs)[1] == []
        # By themselves, and in the project that the page has described so far.
        assert list(routing.Router(conf.parse(jobs)[0]).problems([])) == []
        queues = {**settings.JOBS["QUEUES"], **jobs.get("QUEUES", {})}
        settings.JOBS = {**settings.JOBS, **jobs, "QUEUES": queues, "BROKER_URL": url}
    if "TASKS" in names:
        settings.TASKS = names["TASKS"]
    if "INSTALLED_APPS" in names:
        assert "jobs" in names["INSTALLED_APPS"]
    if "LOGGING" in names:
        logging.config.dictConfig(names["LOGGING"])
    assert problems() == []


def problems() -> list[str]:
    """What the checks say, but for tasks and settings of Celery's that they miss, since only the
    reader's project has them."""
    no_settings = "JOBS['CELERY']: no setting of Django's begins with"
    return [
        str(found)
        for found in run_checks(tags=["jobs"])
        if found.id not in ("jobs.W019", "jobs.W020") and not found.msg.startswith(no_settings)
    ]


# ------------------------------------------------------------------------------- Python


def run_python(block: Block, names: dict[str, Any]) -> None:
    before = dict(names)
    if ">>>" in block.text:
        parsed = doctest.DocTestParser().get_doctest(
            block.text, {}, str(block), str(block.page), block.line - 1
        )
        parsed.globs = names  # not a copy: the next block goes on with it
        out = io.StringIO()
        failed = doctest.DocTestRunner().run(parsed, out.write, clear_globs=False)
        assert not failed.failed, out.getvalue()
        return
    exec(compile(with_shown_results(block), str(block.page), "exec"), names)
    for name, found in names.items():
        if before.get(name) is not found and getattr(found, "__module__", "") == "shop.tasks":
            if isinstance(found, type) and issubclass(found, unittest.TestCase):
                run_test_case(found)
            elif name.startswith("test_"):
                run_test(found)


def with_shown_results(block: Block) -> ast.Module:
    """The block; an expression whose comment is a literal is compared with it."""
    code = block.code()
    lines = block.text.splitlines()
    for n, node in enumerate(code.body):
        if not isinstance(node, ast.Expr) or node.end_lineno is None:
            continue
        rest = lines[node.end_lineno - block.line].encode()[node.end_col_offset :].decode()
        with contextlib.suppress(ValueError, SyntaxError):
            shown = rest.strip().removeprefix("#").strip()
            ast.literal_eval(shown)
            check = ast.parse(f"assert (found := None) == ({shown}), found").body[0]
            assert isinstance(check, ast.Assert)
            assert isinstance(check.test, ast.Compare)
            assert isinstance(check.test.left, ast.NamedExpr)
            check.test.left.value = node.value
            code.body[n] = ast.fix_missing_locations(ast.copy_location(check, node))
    return code


def assigned(block: Block) -> set[str]:
    """The names that a block assigns to, or to an item of."""
    found = set()
    for node in ast.walk(block.code()):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                while isinstance(target, ast.Subscript):
                    target = target.value
                if isinstance(target, ast.Name):
                    found.add(target.id)
    return found


def run_test_case(kind: type[unittest.TestCase]) -> None:
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(kind).run(result)
    assert result.wasSuccessful(), result.errors + result.failures
    assert result.testsRun


def run_test(function: Callable[..., Any]) -> None:
    """A test for pytest, with the fixtures of the plugin."""
    with testing.in_memory() as sent, transaction.atomic():
        given = {"enqueued": sent, "run_jobs": testing.run_jobs}
        function(**{name: given[name] for name in inspect.signature(function).parameters})
        transaction.set_rollback(True)
        mail.outbox.clear()


# ----------------------------------------------------------------------------- commands


def run_command(command: str, block: Block) -> None:
    words = shlex.split(command)
    match words:
        case [("python" | "python3"), "manage.py", name, *args]:
            run_manage(name, args, block)
        case [("python" | "python3"), "-m", module, *_]:
            assert module in ("venv", "pip", "pytest") or _module_exists(module), str(block)
        case ["django-admin", name, *args]:
            parser_of(name).parse_args(args)
        case ["make", *args]:
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert {arg for arg in args if "=" not in arg} <= targets, str(block)
        case ["pip", "install", *what]:
            check_extras(what)
        case [program, *args] if program.startswith(".venv/bin/"):
            paths = [arg for arg in args if arg.startswith(("tests/", "benchmarks/"))]
            assert all((ROOT / path).exists() for path in paths), str(block)
        case [("cd" | "mkdir" | "kubectl" | "docker" | "systemctl"), *_]:
            pass  # of an operator's machine
        case _:
            raise AssertionError(f"{block}: nobody knows how to check {command!r}")


def _module_exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.is_dir() or path.with_suffix(".py").exists()


def parser_of(name: str) -> argparse.ArgumentParser:
    found = get_commands()[name]
    command = load_command_class(found, name) if isinstance(found, str) else found
    return command.create_parser("manage.py", name)


def run_manage(name: str, args: list[str], block: Block) -> None:
    parser = parser_of(name)
    spoken = io.StringIO()
    try:
        with contextlib.redirect_stderr(spoken):
            parser.parse_args(args)
    except (SystemExit, Exception) as error:
        raise AssertionError(f"{block}: {name} {args}: {error} {spoken.getvalue()}") from error
    # Nobody has this ID, and no worker runs for which one could wait.
    if name not in NOT_RUN and not {"ID", "…", "--wait"} & set(args):
        out = io.StringIO()
        call_command(name, *args, stdout=out, stderr=out)


def check_extras(what: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in what:
        if found := re.fullmatch(r"(?:jobsite|\.)(?:\[([\w,-]+)\])?", requirement):
            extras = set((found[1] or "").split(",")) - {""}
            assert extras <= set(project["optional-dependencies"]), requirement


# --------------------------------------------------------------------------------- data


def check_data(block: Block, broker_url: str) -> None:
    match block.language:
        case "text" | "{eval-rst}" | "sql":  # Sphinx reads the second, and the third is run below
            pass
        case "dockerfile":
            lines = block.text.replace("\\\n", " ").splitlines()
            words = {line.split()[0] for line in lines if line.strip() and line[0] != "#"}
            assert words <= DOCKERFILE, str(block)
        case "procfile":
            for line in commands_of(block):
                _process, command = re.fullmatch(r"([a-z]+): (.+)", line).groups()  # type: ignore[union-attr]
                if command.startswith("python manage.py "):
                    run_command(command, block)
        case "json":
            json.loads(block.text)
        case "toml":
            tomllib.loads(block.text)
        case "yaml" | "yml":
            assert list(yaml.safe_load_all(block.text))
        case "ini" | "systemd":
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            parser.read_string(block.text)
            assert parser.sections()
        case "html" | "django" | "html+django" | "htmldjango":
            engines["django"].from_string(block.text)
        case "conf":
            check_valkey(block, broker_url)
        case _:
            raise AssertionError(f"{block}: nobody knows how to check {block.language!r}")


def check_valkey(block: Block, broker_url: str) -> None:
    """Whether Valkey knows these settings of its own."""
    with redis.Redis.from_url(broker_url) as client:
        for line in commands_of(block):
            name, _value = line.split(maxsplit=1)
            assert client.config_get(name), line


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_every_statement() -> None:
    blocks = [b for page in PAGES for b in blocks_of(page) if b.language == "sql" and not b.excuse]
    assert blocks
    with connection.cursor() as cursor:
        try:
            for block in blocks:
                for statement in block.text.split(";"):
                    if statement.strip():
                        cursor.execute(statement)
        finally:  # other tests compare what the table was with what it is again
            cursor.execute(
                "ALTER TABLE jobs_taskresult RESET (autovacuum_vacuum_scale_factor, "
                "autovacuum_vacuum_insert_scale_factor, autovacuum_analyze_scale_factor)"
            )


# ------------------------------------------------------------------------------ excuses


def test_what_is_not_run() -> None:
    found = {
        name_of(page): excuses
        for page in PAGES
        if (excuses := [block.excuse for block in blocks_of(page) if block.excuse])
    }
    assert found == EXCUSED


def test_every_stage_has_its_page() -> None:
    used = {stage_of(page) for page in PAGES} - {None}
    assert used == set(STAGES.glob("[!_]*.py"))


def test_a_wrong_block_is_found() -> None:
    block = Block(ROOT / "README.md", 1, "python", "2 + 1  # 3\n2 + 2  # 5\n")
    with pytest.raises(AssertionError):
        exec(compile(with_shown_results(block), "page", "exec"))
    with pytest.raises(AssertionError, match="--quues"):
        run_manage("runworker", ["--quues", "high"], block)
    with pytest.raises(KeyError):
        run_manage("jobs_nothing", [], block)
    assert apps.is_installed("jobs")
