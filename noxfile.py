"""`nox` runs the tests over the supported pairs of Python and Django, as far as they are found."""

import nox

nox.options.default_venv_backend = "venv"

PAIRS = [("3.11", "5.2"), ("3.12", "6.0"), ("3.13", "6.1")]


@nox.session
@nox.parametrize(
    ("python", "django"),
    [nox.param(python, django, id=f"python{python}-django{django}") for python, django in PAIRS],
)
def tests(session: nox.Session, django: str) -> None:
    session.install("--quiet", "-r", "requirements-dev.txt", f"django~={django}.0")
    on_postgres = ["-m", "not one_database", "--ignore=tests/unit", "--ignore=tests/browser"]
    session.run("python", "-m", "tests.with_postgres", "pytest", *on_postgres, *session.posargs)
    session.run("pytest", *session.posargs)
