"""When the budget of a call is exceeded, and what is said then."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any

import pytest

from benchmarks import budget
from benchmarks.budget import PARTS

BUDGET: dict[str, Any] = {
    "figures": {"delay": 3.0, "work": 2.0, "record": 2.5},
    "packages": {"django": "5.0"},
}


def counted(**times: float) -> dict[str, float]:
    """As many instructions as the budget has, or so many times as many."""
    costs = {name: 1000 * value * times.get(name, 1) for name, value in BUDGET["figures"].items()}
    return {"reference": 1000.0, **costs}


def test_each_part_is_divided_by_its_calls() -> None:
    each = {"reference": 70, "work": 170, "record": 150, "delay": 220}
    found = budget.per_call([each.get(name, 999) * (calls or 1) for name, calls in PARTS])
    assert found == each
    assert budget.figures(found) == {name: each[name] / 70 for name in ("work", "record", "delay")}


def test_a_part_that_is_missing_is_no_figure() -> None:
    with pytest.raises(RuntimeError, match="parts"):
        budget.per_call([1, 2, 3])


def test_what_is_within_the_margin_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.compare(BUDGET, counted(delay=1.09, work=0.5)) == 0
    assert "more than" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["delay", "work", "record"])
def test_what_has_become_dearer_fails(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert budget.compare(BUDGET, counted(**{name: 1.15})) == 1
    printed = capsys.readouterr().out
    assert f"{name} costs 15.0 % more than its budget; 10% is allowed." in printed
    assert "django 5.0 → " in printed
    assert "make budget" in printed


def test_another_machine_s_interpreter_changes_nothing() -> None:
    twice = {name: 2 * count for name, count in counted().items()}
    assert budget.compare(BUDGET, twice) == 0


def test_a_new_figure_needs_a_budget() -> None:
    assert budget.dearer({}, {"delay": 1.0}) == ["delay has no budget; `make budget` writes it."]


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_valgrind_only_ci_fails(
    ci: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["budget"])
    assert budget.main() == status
    assert "there is no valgrind" in capsys.readouterr().out


def test_the_file_has_every_figure() -> None:
    for stored in json.loads(budget.FILE.read_text()).values():
        assert set(stored["figures"]) == {name for name, _ in PARTS} - {"", "reference"}
