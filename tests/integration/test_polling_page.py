"""The code of docs/polling.md, while a call waits and after its end."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import clear_url_caches
from pytest_django import Settings

from tests.project import ROOT
from tests.services import missing
from tests.workers import work

PAGE = ROOT / "docs" / "polling.md"

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("broker_url", "own_tasks"),
]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Iterator[None]:
    """A project that has what the page shows, each block in the file that its first line names."""
    if importlib.util.find_spec("rest_framework") is None:
        missing("djangorestframework is not installed")
    text = PAGE.read_text()
    blocks = re.findall(r"^```(?:python|html)\n(?:#|<!--) (\S+).*?\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 6
    for name, code in blocks:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    settings.TEMPLATES = [
        {**one, "DIRS": [tmp_path / "reports" / "templates"]} for one in settings.TEMPLATES
    ]
    importlib.import_module("reports.tasks")
    settings.ROOT_URLCONF = "reports.urls"
    clear_url_caches()
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "reports"]:
        del sys.modules[name]


def visitor(name: str) -> Client:
    client = Client()
    client.force_login(User.objects.create_user(name))
    return client


def get(client: Client, url: str, **headers: str) -> Any:
    return client.get(url, headers=headers)


@pytest.mark.usefixtures("site")
def test_the_page() -> None:
    ada, eve = visitor("ada"), visitor("eve")
    url = ada.post("/exports/").headers["Location"]

    waiting = get(ada, url).content.decode()
    assert "<!doctype html>" in waiting
    assert f'hx-get="{url}"' in waiting
    part = get(ada, url, hx_request="true").content.decode()
    assert "<!doctype html>" not in part
    assert "0 %" in part
    assert get(eve, url).status_code == 404

    work()
    ended = get(ada, url, hx_request="true").content.decode()
    assert '<a href="/media/export-12.csv">' in ended
    assert "hx-get" not in ended


@pytest.mark.usefixtures("site")
def test_the_api() -> None:
    ada, eve = visitor("ada"), visitor("eve")
    assert Client().post("/api/exports/").status_code == 403
    accepted = ada.post("/api/exports/")
    assert accepted.status_code == 202
    url = accepted.headers["Location"]

    waiting = get(ada, url)
    assert waiting.json() == {"state": "PENDING", "percent": None}
    assert waiting.headers["Retry-After"] == "1"
    assert get(eve, url).status_code == 404

    work()
    assert get(ada, url).json() == {"state": "SUCCESS", "file": "/media/export-12.csv"}
