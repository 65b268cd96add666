"""Models of pydantic as arguments and results."""

from __future__ import annotations

from typing import Any

import pytest

from jobs import Task, task
from jobs.testing import run_jobs

pydantic = pytest.importorskip("pydantic")

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("broker_url")]


class Order(pydantic.BaseModel):  # type: ignore[misc, name-defined, unused-ignore]
    pk: int
    note: str = ""


def total(self: Task[..., Any], order: Order, other: Order | None = None, times: int = 1) -> Order:
    assert isinstance(order, Order)
    assert other is None or isinstance(other, Order)
    return Order(pk=(order.pk + (other.pk if other else 0)) * times, note="total")


async def atotal(order: Order) -> Order:
    assert isinstance(order, Order)
    return order


plain = task(pydantic=True, bind=True, name="pydantic.plain")(total)
asynchronous = task(pydantic=True, name="pydantic.async")(atotal)
strict = task(
    pydantic=True,
    pydantic_strict=True,
    name="pydantic.strict",
    pydantic_dump_kwargs={"exclude": {"note"}},
)(atotal)


def test_models_come_and_go() -> None:
    results = [
        plain.delay({"pk": "1"}, {"pk": 2}, 3),
        plain.delay(Order(pk=1), other=Order(pk=2), times=3),
        asynchronous.delay(Order(pk=4)),
        strict.delay({"pk": 5}),
    ]
    wrong = [strict.delay({"pk": "5"}), plain.delay({"note": "no key"})]
    run_jobs()
    assert [r.result for r in results] == [
        {"pk": 9, "note": "total"},
        {"pk": 9, "note": "total"},
        {"pk": 4, "note": ""},
        {"pk": 5},
    ]
    assert ["validation error" in str(r.result) for r in wrong] == [True, True]
    assert plain({"pk": 1}) == {"pk": 1, "note": "total"}  # as in Celery
    with pytest.raises(TypeError, match="missing a required argument: 'order'"):
        plain.delay()
