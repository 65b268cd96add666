"""The documentation names what exists, all of it, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.dispatch import Signal

import jobs
from jobs import AsyncResult, GroupResult, Request, Task, conf, control, exceptions, signals
from jobs.api.options import CelerysOptions, Options, TaskOptions
from jobs.models import Schedule, TaskAttempt, TaskResult
from jobs.running.progress import Progress
from tests.check_docs import broken_links, prose

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])

#: Options that every command of Django has.
DJANGO_OPTIONS = {
    *("--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback"),
    *("--no-color", "--force-color", "--skip-checks"),
}
#: Options of Celery that pages name.
OTHERS_OPTIONS = {"--statedb"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def in_code(page: Path) -> set[str]:
    """Every word that stands in code, inline or in a block."""
    text = text_of(page)
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", prose(page))
    return set(re.findall(r"[\w-]+", "\n".join([*blocks, *inline])))


def id_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def section_of(page: Path, heading: str) -> str:
    found = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text_of(page), re.MULTILINE | re.DOTALL)
    assert found is not None, f"no section on {heading}"
    return found[1]


def missing(names: Any, page: Path) -> list[str]:
    return sorted(set(names) - in_code(page))


# ------------------------------------------------------------------------------- settings


def documented_defaults() -> dict[str, Any]:
    """Name → default, of every row ``| `NAME` | type | `default` | …`` of the page."""
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \|", text_of(REFERENCE / "settings.md"), re.MULTILINE
    )
    assert len(rows) == len({name for name, _ in rows}), "a setting is documented twice"
    return {name: ast.literal_eval(default) for name, default in rows}


def defaults_of(kind: type[Any]) -> dict[str, Any]:
    """The defaults as one would write them in the settings."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            given, usual = dataclasses.asdict(value), dataclasses.asdict(type(value)())
            # A queue is written as {}, the policy with all that it says.
            return {} if isinstance(value, conf.Queue) and given == usual else given
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    made = kind()
    return {f.name: plain(getattr(made, f.name)) for f in dataclasses.fields(kind)}


def test_every_setting_is_documented_with_its_default() -> None:
    expected = {name.upper(): value for name, value in defaults_of(conf.Conf).items()}
    expected |= defaults_of(conf.Queue) | defaults_of(conf.RetryPolicy)
    assert documented_defaults() == expected


def test_documented_defaults_are_accepted_and_change_nothing() -> None:
    given = {name: value for name, value in documented_defaults().items() if name.isupper()}
    assert conf.parse(given) == (conf.Conf(), [])


def test_every_check_is_documented() -> None:
    found = re.findall(r'id="(jobs\.[EIW]\d+)"', text_of(ROOT / "jobs" / "checks.py"))
    assert set(re.findall(r"`(jobs\.[EIW]\d+)`", text_of(REFERENCE / "settings.md"))) == set(found)


# ----------------------------------------------------------------------------------- names


def test_every_public_name_is_documented() -> None:
    assert missing(jobs.__all__, REFERENCE / "tasks.md") == []


def test_every_public_name_is_in_the_reference_made_from_docstrings() -> None:
    named = re.findall(r"^\.\. auto\w+:: jobs\.(\w+)$", text_of(REFERENCE / "api.md"), re.MULTILINE)
    assert set(jobs.__all__) <= set(named)


@pytest.mark.parametrize("kind", [Task, AsyncResult, GroupResult, Request, Progress])
def test_every_member_is_documented(kind: type[Any]) -> None:
    own = {name for name in vars(kind) if not name.startswith("_") and hasattr(kind, name)}
    if kind is Task:
        own -= {"run"}  # the bare function; calling the task is the way
        own -= {
            "message",
            "address",
            "check_arguments",
            "check_options",
        }  # for what sends within `jobs`
    assert missing(own, REFERENCE / "tasks.md") == []


@pytest.mark.parametrize(
    "function",
    [
        Task.__init__,
        Task.apply_async,
        Task.enqueue_many,
        Task.retry,
        Task.on,
        Task.progress,
        Task.update_state,
        Task.iterate,
        AsyncResult.follow,
        AsyncResult.get,
        AsyncResult.revoke,
    ],
)
def test_every_option_is_documented(function: Any) -> None:
    options = set(inspect.signature(function).parameters) - {"self", "run", "signal"}
    assert missing(options, REFERENCE / "tasks.md") == []


def test_every_option_of_a_task_is_documented_with_its_default() -> None:
    section = section_of(REFERENCE / "tasks.md", "The decorator")
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", section, re.MULTILINE))
    # What these two are without a value is not a constant.
    assert rows.pop("name") == "module.function"
    assert rows.pop("queue") == "DEFAULT_QUEUE"
    expected = defaults_of(Options)
    del expected["name"], expected["queue"]
    assert {name: ast.literal_eval(default) for name, default in rows.items()} == expected
    celerys = set(CelerysOptions.__annotations__)
    assert set(TaskOptions.__annotations__) - celerys == {"name", "queue", *expected}


def test_every_verb_of_control_is_documented_with_its_options() -> None:
    section = section_of(REFERENCE / "tasks.md", "Control")
    described = dict(re.findall(r"^\| `(\w+)\(([^`]*)\)` \|", section, re.MULTILINE))
    verbs = {
        name: verb for name in control.__all__ if inspect.isfunction(verb := getattr(control, name))
    }
    assert set(described) == set(verbs)
    for name, verb in verbs.items():
        told = set(re.findall(r"(\w+)(?:=[^,]+)?(?:, |$)", described[name]))
        assert told == set(inspect.signature(verb).parameters), name


def test_all_that_control_has_is_documented() -> None:
    public = {*control.__all__, *(act.name for act in control.workers.Act)}
    assert missing(public, REFERENCE / "tasks.md") == []
    acts = section_of(REFERENCE / "commands.md", "jobs_worker")
    rows = set(re.findall(r"^\| `([a-z][a-z-]*)` \|", acts, re.MULTILINE))
    assert rows == {act.value for act in control.workers.Act}


def test_every_column_is_documented() -> None:
    models = (Schedule, TaskResult, TaskAttempt)
    columns = {f.name for model in models for f in model._meta.get_fields()}
    assert missing(columns - {"id"}, REFERENCE / "tasks.md") == []


COMMANDS = sorted(p.stem for p in (ROOT / "jobs/management/commands").glob("[!_]*.py"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    parser = load_command_class("jobs", name).create_parser("manage.py", name)
    options = {o for action in parser._actions for o in action.option_strings if o[:2] == "--"}
    section = section_of(REFERENCE / "commands.md", name)
    described = set(re.findall(r"^\| `(--[\w-]+)`", section, re.MULTILINE))
    assert described == options - DJANGO_OPTIONS


def test_every_signal_is_documented_with_its_arguments() -> None:
    text = text_of(REFERENCE / "signals.md")
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\|([^|]*)\|$", text, re.MULTILINE))
    assert set(rows) == {name for name, it in vars(signals).items() if isinstance(it, Signal)}
    source = text_of(ROOT / "jobs" / "signals.py")
    for name, arguments in rows.items():
        comment = re.search(rf"((?:^#:.*\n)+)^{name} = ", source, re.MULTILINE)
        assert comment is not None
        listed = comment[1].partition("Arguments:")[2]
        assert re.findall(r"`(\w+)`", arguments) == re.findall(r"``(\w+)``", listed), name


def test_every_error_is_documented() -> None:
    classes = {
        name
        for name, it in vars(exceptions).items()
        if inspect.isclass(it) and it.__module__ == exceptions.__name__
    }
    assert missing(classes, REFERENCE / "errors.md") == []
    tree = re.search(r"^( +)JobsError\n(?:\1.+\n)+", text_of(REFERENCE / "errors.md"), re.MULTILINE)
    assert tree is not None
    assert set(re.findall(r"\w+", tree[0])) == {
        getattr(exceptions, one).__name__ for one in classes
    }


# ------------------------------------------------------------------------ links and names


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken_links(page)) == []


def test_every_page_is_in_the_index() -> None:
    linked = re.findall(r"\]\(([\w/.-]+\.md)", text_of(DOCS / "README.md"))
    pages = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} - {"README.md"}
    assert pages - set(linked) == set()


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_files_that_are_named_exist(page: Path) -> None:
    places = "jobs|jobsite|tests|benchmarks|docs"
    named = re.findall(rf"`((?:{places})/[\w/.-]*)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


def every_option() -> set[str]:
    """The options of all commands of the app."""
    parsers = [load_command_class("jobs", name).create_parser("", name) for name in COMMANDS]
    return {option for parser in parsers for option in parser._option_string_actions}


@pytest.mark.parametrize("page", PAGES, ids=id_of)
def test_commands_in_sentences_exist(page: Path) -> None:
    """`jobs_retry --label`, `make storm`: blocks are the affair of test_pages.py."""
    commands = get_commands()
    targets = set(re.findall(r"^([a-z-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    for code in re.findall(r"`([^`\n]+)`", prose(page)):
        match code.removeprefix("python ").removeprefix("manage.py ").split():
            case ["make", target, *_] if "=" not in target:
                assert target in targets, code
            case [name, *words] if name in commands and name.startswith(("jobs_", "run")):
                found = commands[name]
                command = load_command_class(found, name) if isinstance(found, str) else found
                parser = command.create_parser("manage.py", name)
                options = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert options <= set(parser._option_string_actions), code
            case [option] if option.startswith("--") and page.parent == DOCS:
                assert option.partition("=")[0] in every_option() | OTHERS_OPTIONS, code
            case [name, *_] if "manage.py jobs_" in code:
                assert name in commands, code


def test_tests_named_as_evidence_exist() -> None:
    text = text_of(DOCS / "guarantees.md")
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", text)
    assert named
    lost = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / "tests" / file).exists()
        or f"def {test}(" not in text_of(ROOT / "tests" / file)
    ]
    assert lost == []
