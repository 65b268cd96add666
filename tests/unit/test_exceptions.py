from __future__ import annotations

import inspect
import pickle
import re

import pytest

from jobs import exceptions
from jobs.exceptions import JobsError

CLASSES = [
    found
    for _, found in inspect.getmembers(exceptions, inspect.isclass)
    if found.__module__ == exceptions.__name__
]


def drawn() -> dict[str, tuple[str, set[str]]]:
    """Class → its parent and what it also is, as the module's docstring draws them."""
    found: dict[str, tuple[str, set[str]]] = {}
    above: list[str] = []
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4
            also = set(re.findall(r"\(also (\w+)\)", line))
            above[depth:] = [match[2]]
            found[match[2]] = (above[depth - 1] if depth else "Exception", also)
    return found


def test_the_tree_is_drawn_as_it_is() -> None:
    real = {
        cls.__name__: (cls.__bases__[0].__name__, {base.__name__ for base in cls.__bases__[1:]})
        for cls in CLASSES
    }
    for name, (parent, also) in drawn().items():
        assert real[name][0] == parent, name
        assert also <= real[name][1], name
    assert set(drawn()) == set(real)


def test_what_an_error_also_is_is_drawn() -> None:
    for cls in CLASSES:
        for base in cls.__bases__[1:]:
            assert base.__name__ in drawn()[cls.__name__][1], f"{cls.__name__} ({base.__name__})"


@pytest.mark.parametrize("cls", CLASSES)
def test_the_docstring_is_the_message(cls: type[JobsError]) -> None:
    assert issubclass(cls, JobsError)
    assert str(cls()) == (cls.__doc__ or "").strip()
    assert str(cls()).endswith(".")
    assert str(cls("another")) == "another"


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_cross_processes(cls: type[JobsError]) -> None:
    for error in (cls(), cls("why")):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is cls
        assert again.args == error.args
