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


class Sender(Protocol):
    """Sends a task with these arguments, once in a transaction for equal ``once``."""

    def __call__(self, args: Sequence[Any], *, once: Hashable | None) -> None: ...


def by_primary_key(instance: Model, **_: Any) -> tuple[Any, ...]:
    return (instance.pk,)


def connect(
    send: Sender,
    name: str,
    signal: Signal,
    *,
    sender: type[Model] | str | None,
    when: Callable[..., bool] | None,
    args: Callable[..., Sequence[Any]],
) -> None:
    """Call ``send`` at each of these signals for which ``when`` is true.

    ``name`` identifies the trigger: connecting one of the same name replaces it.
    """

    def receiver(instance: Model, **named: Any) -> None:
        if named.get("raw"):
            return  # loaddata: what the instance refers to may not be there yet
        if when is None or when(instance=instance, **named):
            # With the model, since rows of two models have equal keys. A row that isn't saved yet
            # has no key, and equals no other.
            once = None if instance.pk is None else (name, type(instance), instance.pk)
            send(args(instance=instance, **named), once=once)

    # A model signal also takes "app.Model" as sender. Not weak: nobody else holds the receiver.
    signal.connect(receiver, sender=sender, weak=False, dispatch_uid=f"jobs.trigger:{name}")
