"""The buttons for the language at the foot of each page."""

from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse


@pytest.mark.django_db
def test_the_chinese_button_changes_the_page(client: Client) -> None:
    assert "Background jobs for Django" in client.get("/").content.decode()
    client.post(reverse("set_language"), {"language": "zh-hans", "next": "/"})
    page = client.get("/").content.decode()
    assert 'lang="zh-hans"' in page
    assert "Django 的后台任务" in page
    assert "Background jobs for Django" not in page
