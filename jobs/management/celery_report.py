"""Reports what a code base uses of Celery, and what to write for it here, from its source alone.

Which names are the same, and what replaces the others, comes from the code that implements them:
the options of tasks and calls, the names in ``jobs``, its signals and exceptions, and
`jobs.conf.celery`. Pure but for reading files.
"""

from __future__ import annotations

import ast
import os
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from django.utils.module_loading import import_string

from jobs import exceptions, signals
from jobs.api.bases import HOOKS
from jobs.api.options import KNOWN, understood
from jobs.conf import celery
from jobs.conf.values import nearest
from jobs.message import celery_names
from jobs.message.call import OPTIONS

#: "same": nothing to do. "other": it is here under another name. "none": it isn't here.
Verdict = Literal["same", "other", "none"]


class Use(NamedTuple):
    """One use of Celery."""

    file: str
    line: int
    #: "import", "decorator", "option", "call", "canvas", "app", "setting", "schedule" or "file".
    kind: str
    what: str
    verdict: Verdict
    #: What to write, or why nothing has to be done; empty: it is the same.
    told: str = ""


#: What a Celery app has: what to write here.
APP: Mapping[str, tuple[Verdict, str]] = {
    "task": ("other", "`@jobs.task`"),
    "Task": ("other", "`jobs.Task`"),
    "send_task": ("other", "`jobs.send_task`"),
    "signature": ("other", "`jobs.signature`"),
    "AsyncResult": ("other", "`jobs.AsyncResult`"),
    "GroupResult": ("other", "`jobs.GroupResult`"),
    "register_task": ("other", "`jobs.register_task`"),
    "add_periodic_task": ("other", "`jobs.add_periodic_task`"),
    "control": ("other", "`jobs.control`, or the commands `jobs_revoke`, `jobs_inspect`, …"),
    "current_task": ("other", "`jobs.current_task`"),
    "tasks": ("other", "`jobs.registry.tasks`"),
    "conf": ("other", "`JOBS` in Django's settings"),
    "config_from_object": ("none", '`JOBS = {"CELERY": "CELERY"}`, with the namespace'),
    "autodiscover_tasks": ("none", "nothing: modules `tasks` of installed apps are found"),
    "on_after_configure": ("none", "`jobs.add_periodic_task` in a module `tasks`"),
    "on_after_finalize": ("none", "`jobs.add_periodic_task` in a module `tasks`"),
    "start": ("none", "`manage.py runworker`"),
    "worker_main": ("none", "`manage.py runworker`"),
    "set_default": ("none", "nothing: there is no app"),
    "finalize": ("none", "nothing: there is no app"),
}

_NO_APP = "there is no app; settings are `JOBS`, and functions are in `jobs`"

#: Modules, and what to write in place of what they have. The longest that fits counts.
MODULES: Mapping[str, tuple[Verdict, str]] = {
    "celery.contrib.testing": ("none", "`jobs.testing`: `run_jobs()`, `enqueued`"),
    "celery.contrib.pytest": ("none", "`jobs.testing`: `run_jobs()`, `enqueued`"),
    "celery.contrib": ("none", "it has no equal"),
    "celery.bin": ("none", "`manage.py runworker`, `runbeat`"),
    "celery.beat": ("none", "schedules are rows of `jobs.models.Schedule`"),
    "celery.backends": ("none", "results are rows of `jobs.models.TaskResult`"),
    "celery.worker": ("none", "hooks and signals of `jobs`"),
    "celery.events": ("none", "signals of `jobs`; `CELERY_EVENTS` sends Celery's events"),
    "celery.app": ("none", _NO_APP),
    "celery": ("none", "it has no equal"),
    "kombu": ("none", "messages are JSON, queues are declared in `JOBS`"),
    "django_celery_beat": (
        "other",
        "`jobs.models.Schedule`; `jobs_import_celery_beat` copies rows",
    ),
    "django_celery_results": ("other", "`jobs.models.TaskResult`"),
    "celery_once": ("other", "`unique=` of the decorator"),
    "celery_singleton": ("other", "`unique=` of the decorator"),
    "celery_batches": ("other", "`batch=` of the decorator"),
}

#: What `jobs` itself offers. No file imports that module: it is above all others.
_PUBLIC = frozenset(import_string("jobs.__all__"))

_CANVAS = frozenset({"chain", "group", "chord", "signature", "chunks", "xmap", "xstarmap"})
#: Methods that send a call.
_SENDS = frozenset({"delay", "apply_async", "delay_on_commit", "apply_async_on_commit"})
#: Methods that make a signature.
_SIGNS = frozenset({"s", "si", "signature", "subtask", "map", "starmap", "chunks"})
#: What ``apply_async`` takes besides the options of a message.
_OF_CALLS = frozenset({"args", "kwargs", "link", "link_error", "retry", "retry_policy", "task_id"})
_OF_SCHEDULES = frozenset({"task", "schedule", "args", "kwargs", "options", *celery_names.SCHEDULE})
_SKIPPED = frozenset({"node_modules", "__pycache__", "site-packages"})


def report(path: Path) -> tuple[list[Use], int]:
    """Every use of Celery in a file, or in the files below a folder, in their order, and how many
    files were read."""
    root = path if path.is_dir() else path.parent
    files = list(_files(path))
    trees: dict[str, ast.Module] = {}
    uses: list[Use] = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            with tokenize.open(file) as opened:
                trees[name] = ast.parse(opened.read())
        except (SyntaxError, UnicodeDecodeError, ValueError, OSError) as error:
            told = f"it can't be read: {error}"
            uses.append(Use(name, getattr(error, "lineno", 0) or 0, "file", name, "none", told))
    # Which names stand for an app or a task is known before the files are looked through.
    apps = {(Path(name).stem, target) for name, tree in trees.items() for target in _apps_of(tree)}
    tasks = {name for tree in trees.values() for name in _tasks_of(tree)}
    for name, tree in trees.items():
        reader = _Reader(name, apps, tasks)
        reader.visit(tree)
        uses += reader.uses
    return sorted(set(uses), key=lambda use: (use.file, use.line, use.kind, use.what)), len(files)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for folder, below, names in os.walk(path):
        below[:] = sorted(
            name
            for name in below
            if not (name.startswith(".") or name in _SKIPPED)
            and not (Path(folder) / name / "pyvenv.cfg").exists()
        )
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(".py"))


def _apps_of(tree: ast.Module) -> Iterator[str]:
    """Names to which this module gives a Celery app."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if _last(node.value.func) == "Celery":
            yield from (one.id for one in node.targets if isinstance(one, ast.Name))


def _tasks_of(tree: ast.Module) -> Iterator[str]:
    """Names of functions that a decorator makes tasks."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            made = [one.func if isinstance(one, ast.Call) else one for one in node.decorator_list]
            if any(_last(one) in ("shared_task", "task", "periodic_task") for one in made):
                yield node.name


def _last(node: ast.expr) -> str:
    """The last part of a dotted name; "" for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def of_name(origin: str) -> tuple[Verdict, str]:
    """What becomes of a name that is imported from Celery or its relatives, given in full."""
    module, _, name = origin.rpartition(".")
    if module.startswith("kombu") and name in ("Queue", "Exchange", "binding"):
        return "same", "`JOBS` reads kombu's objects"
    if origin in ("celery.states", "celery.exceptions", "celery.signals"):
        return "other", f"`from jobs import {name}`"
    if module == "celery.states":
        return "other", f"`from jobs.states import {name}`"
    if module == "celery.exceptions" and hasattr(exceptions, name):
        return "other", f"`from jobs.exceptions import {name}`"
    if module == "celery.signals":
        if instead := signals.not_sent(name):
            return "none", instead
        if name in vars(signals):
            return "other", f"`from jobs.signals import {name}`"
    if origin.startswith("celery.") and name in _PUBLIC:
        return "other", f"`from jobs import {name}`"
    if name in celery_names.MODULE:
        return "none", celery_names.MODULE[name]
    fitting = [one for one in MODULES if origin == one or origin.startswith(f"{one}.")]
    return MODULES[max(fitting, key=len)]


def is_celerys(origin: str) -> bool:
    """Whether this full name belongs to Celery or a relative of it."""
    return origin.partition(".")[0] in {name.partition(".")[0] for name in MODULES}


class _Reader(ast.NodeVisitor):
    """Goes through one file."""

    def __init__(self, file: str, apps: set[tuple[str, str]], tasks: set[str]) -> None:
        self.file = file
        self.uses: list[Use] = []
        self._apps = apps
        self._tasks = tasks
        #: Name in this file → its full name; those of apps → "app".
        self._names = {name: "app" for stem, name in apps if stem == Path(file).stem}
        self._in_function = 0
        #: Expressions that were reported as part of a larger one.
        self._said: set[ast.AST] = set()

    def _use(self, node: ast.AST, kind: str, what: str, verdict: Verdict, told: str = "") -> None:
        line = getattr(node, "lineno", 0)
        self.uses.append(Use(self.file, line, kind, what, verdict, told))

    def _origin(self, node: ast.AST) -> str:
        """The full name of what an expression names; "" if it isn't known."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute) and (before := self._origin(node.value)):
            return f"{before}.{node.attr}"
        return ""

    # ------------------------------------------------------------------ imports

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if is_celerys(alias.name):
                first = alias.name.partition(".")[0]
                self._names[alias.asname or first] = alias.name if alias.asname else first
                told = "import what is used from `jobs`"
                self._use(node, "import", alias.name, "other", told)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            name = alias.asname or alias.name
            if not node.level and is_celerys(module):
                self._names[name] = f"{module}.{alias.name}"
                self._use(node, "import", f"{module}.{alias.name}", *of_name(self._names[name]))
            elif (module.rpartition(".")[2], alias.name) in self._apps:
                self._names[name] = "app"
                self._use(node, "import", f"{module}.{alias.name}", "none", _NO_APP)

    # ------------------------------------------------------------------ tasks and calls

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for one in node.decorator_list:
            made = one.func if isinstance(one, ast.Call) else one
            origin = self._origin(made)
            if origin == "celery.shared_task" or (
                origin.endswith(".task") and (origin.startswith(("app.", "celery.")))
            ):
                verdict: Verdict = "same" if origin == "celery.shared_task" else "other"
                told = "" if verdict == "same" else APP["task"][1]
                self._use(one, "decorator", f"@{ast.unparse(made)}", verdict, told)
                self._said.add(made)
                for keyword in one.keywords if isinstance(one, ast.Call) else ():
                    self._option(keyword)
        self._in_function += 1
        self.generic_visit(node)
        self._in_function -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def _option(self, keyword: ast.keyword) -> None:
        """An option of a decorator."""
        name = keyword.arg
        if name is None:
            return
        what = f"{name}={ast.unparse(keyword.value)}"
        if name in HOOKS or name == "base":
            self._use(keyword.value, "option", what, "same")
        elif name not in KNOWN:
            told = f"{name} is no option of a task.{nearest(name, KNOWN)}"
            self._use(keyword.value, "option", what, "none", told)
        else:
            known, value = _literal(keyword.value)
            try:
                understood({name: value} if known else {})
            except (TypeError, ValueError) as error:
                self._use(keyword.value, "option", what, "none", str(error))
            else:
                self._use(keyword.value, "option", what, "same")

    def visit_Call(self, node: ast.Call) -> None:
        called, origin = _last(node.func), self._origin(node.func)
        if called in _CANVAS and origin.startswith("celery."):
            self._use(node, "canvas", f"{called}(…)", "same")
        elif isinstance(node.func, ast.Attribute) and not origin:
            receiver = _last(node.func.value)
            if called in _SENDS or (called in _SIGNS and receiver in self._tasks):
                self._use(node, "call", f"{ast.unparse(node.func)}(…)", "same")
                self._said.add(node.func)
                for keyword in node.keywords if called.startswith("apply_async") else ():
                    self._call_option(keyword)
            elif called == "add_periodic_task":
                self._use(node, "app", ast.unparse(node.func), *APP[called])
        if origin == "app.send_task":
            for keyword in node.keywords:
                self._call_option(keyword)
        if origin == "app.conf.update":
            for keyword in node.keywords:
                self._setting(keyword.value, keyword.arg or "", keyword.value)
        self.generic_visit(node)

    def _call_option(self, keyword: ast.keyword) -> None:
        name = keyword.arg
        if name is None or name in OPTIONS or name in _OF_CALLS or name == "name":
            return  # said with the call
        what = f"{name}={ast.unparse(keyword.value)}"
        if name not in celery_names.CALL:
            told = f"{name} is no option of a call.{nearest(name, OPTIONS | _OF_CALLS)}"
            self._use(keyword.value, "option", what, "none", told)
            return
        known, value = _literal(keyword.value)
        try:
            celery_names.left_of({name: value if known else object()}, celery_names.CALL)
        except TypeError:
            told = celery_names.CALL[name].instead
            self._use(keyword.value, "option", what, "none", told)
        else:
            self._use(keyword.value, "option", what, "same")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        origin = "" if node in self._said else self._origin(node)
        before, _, name = origin.partition(".")
        if before == "app" and "." not in name:
            self._use(node, "app", f"{ast.unparse(node)}", *APP.get(name, ("none", _NO_APP)))
        elif is_celerys(origin) and not is_module(origin) and is_module(origin.rpartition(".")[0]):
            self._use(node, "import", origin, *of_name(origin))
        self.generic_visit(node)

    # ------------------------------------------------------------------ settings

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._assigned(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)
        self.generic_visit(node)

    def _assigned(self, target: ast.expr, value: ast.expr) -> None:
        """Report a setting, if this is one."""
        if isinstance(target, ast.Name) and not self._in_function:
            of_django = target.id.startswith("CELERY") and target.id.isupper()
            own_module = Path(self.file).stem.startswith("celeryconfig")
            if of_django or (own_module and celery.new_name(target.id)):
                self._setting(target, target.id, value)
            elif target.id == "INSTALLED_APPS" and isinstance(value, ast.List | ast.Tuple):
                for one in value.elts:
                    known, name = _literal(one)
                    if known and name in ("django_celery_beat", "django_celery_results"):
                        told = f"take it out, and put in `jobs`. {MODULES[name][1]}"
                        self._use(one, "setting", name, "none", told)
        elif isinstance(target, ast.Attribute) and self._origin(target.value) == "app.conf":
            self._said.add(target.value)
            self._setting(target, target.attr, value)

    def _setting(self, node: ast.expr, name: str, value: ast.expr) -> None:
        new = celery.new_name(name)
        if not new and name.startswith("CELERY_"):
            new = celery.new_name(name.removeprefix("CELERY_"))
        known = celery.setting(new) if new else None
        if known is None:
            told = f"it isn't a setting of Celery's.{nearest(name, celery.SETTINGS)}"
            self._use(node, "setting", name, "none", told)
            return
        is_literal, given = _literal(value)
        followed = known.needless or bool(known.ours)
        if is_literal:
            followed = celery.is_followed(new, given)
        told = celery.told(known)
        if not followed:
            self._use(node, "setting", name, "none", told)
        elif name.startswith("CELERY"):
            self._use(node, "setting", name, "same", told)
        else:
            self._use(node, "setting", name, "other", f'`JOBS["CELERY"]`: {told}')
        if new == "beat_schedule" and isinstance(value, ast.Dict):
            self._schedules(value)

    def _schedules(self, entries: ast.Dict) -> None:
        for key, entry in zip(entries.keys, entries.values, strict=True):
            name = _literal(key)[1] if key is not None else None
            if not isinstance(entry, ast.Dict):
                continue
            keys = [_literal(one)[1] for one in entry.keys if one is not None]
            if unknown := [one for one in keys if one not in _OF_SCHEDULES]:
                told = f"{unknown[0]!r} is not known to schedules"
                self._use(entry, "schedule", str(name), "none", told)
            else:
                self._use(entry, "schedule", str(name), "same")


def is_module(origin: str) -> bool:
    """Whether a full name is a module of Celery's, as far as its names say."""
    known = {"celery.signals", "celery.exceptions", "celery.schedules", "celery.result"}
    return origin in known | {
        "celery",
        "celery.utils",
        "celery.utils.log",
        "celery.canvas",
        "kombu",
    }


def _literal(node: ast.expr) -> tuple[bool, Any]:
    """Whether an expression is a literal, and its value."""
    try:
        return True, ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False, None
