"""`from jobs import …`: what is there, and that it costs nothing before models can load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import jobs


def test_the_public_names() -> None:
    assert set(jobs.__all__) >= {"AsyncResult", "Request", "State", "Task", "shared_task", "task"}
    for name in jobs.__all__:
        assert getattr(jobs, name) is not None
        assert name in dir(jobs)
    namespace: dict[str, object] = {}
    exec("from jobs import *", namespace)
    assert set(jobs.__all__) <= set(namespace)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="module 'jobs' has no attribute 'taks'"):
        _ = jobs.taks
    with pytest.raises(ImportError):
        exec("from jobs import taks")


def test_importing_the_package_imports_neither_models_nor_settings() -> None:
    code = (
        "import sys, jobs; "
        "assert not [n for n in sys.modules if n.startswith('jobs.')], sys.modules; "
        "assert 'django' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_version() -> None:
    assert jobs.__version__.count(".") == 2
