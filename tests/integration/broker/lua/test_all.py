"""What holds for all scripts."""

from importlib import resources

import pytest
import redis

from jobs.broker import scripts
from jobs.broker.scripts import Script

NAMES = sorted(
    file.name.removesuffix(".lua")
    for file in resources.files("jobs.broker").joinpath("lua").iterdir()
    if file.name.endswith(".lua")
)


def script(name: str) -> Script:
    return getattr(scripts, name.upper())


@pytest.mark.parametrize("name", NAMES)
def test_the_server_knows_it_by_our_hash(name: str, client: redis.Redis):
    assert client.script_load(script(name).text) == script(name).sha


@pytest.mark.parametrize("name", NAMES)
def test_its_head_names_keys_and_arguments(name: str):
    head = script(name).text.split("\nlocal", 1)[0].split("\nif", 1)[0]
    assert head.startswith("-- ")
    assert "KEYS" in head
    assert "ARGV" in head


@pytest.mark.parametrize("name", NAMES)
def test_it_never_looks_inside_a_message(name: str):
    assert "cjson" not in script(name).text
    assert "cmsgpack" not in script(name).text


@pytest.mark.parametrize("name", NAMES)
def test_it_has_a_test_of_its_own(name: str):
    assert resources.files("tests.integration.broker.lua").joinpath(f"test_{name}.py").is_file()
