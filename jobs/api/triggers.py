"""Model signals that send tasks at commit::

    send_welcome.on(
        post_save, sender=User,
        when=lambda instance, created, **_: created,
        args=lambda instance, **_: (instance.pk,),
    )

`Task.on` is the way in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from django.db.models import Model
from django.dispatch import Signal


class Send(Protocol):
    """Sends a task with these arguments, once a transaction for equal ``once``."""

    def __call__(self, args: Sequence[Any], *, once: Hashable | None) -> None: ...


def by_primary_key(instance: Model, **_: Any) -> tuple[Any, ...]:
    return (instance.pk,)


def connect(
    send: Send,
    name: str,
    signal: Signal,
    *,
    sender: type[Model] | str | None,
    when: Callable[..., bool] | None,
    args: Callable[..., Sequence[Any]],
) -> None:
    """Call ``send`` at each of these signals for which ``when`` holds.

    ``name`` tells this trigger from others: connecting it again replaces it.
    """

    def receiver(instance: Model, **named: Any) -> None:
        if named.get("raw"):
            return  # loaddata: what the instance refers to may not be there yet
        if when is None or when(instance=instance, **named):
            # The model belongs to the key: two models have rows with equal keys.
            # A row without a key, not saved yet, is equal to no other.
            once = None if instance.pk is None else (name, type(instance), instance.pk)
            send(args(instance=instance, **named), once=once)

    # A model signal takes the sender as "app.Model" as well; strong, since nobody else holds it.
    signal.connect(receiver, sender=sender, weak=False, dispatch_uid=f"jobs.trigger:{name}")
