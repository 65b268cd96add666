"""The states of a task, named as Celery names them."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    PENDING = "PENDING", _("pending")
    STARTED = "STARTED", _("started")
    RETRY = "RETRY", _("waiting for a retry")
    SUCCESS = "SUCCESS", _("succeeded")
    FAILURE = "FAILURE", _("failed")
    REVOKED = "REVOKED", _("revoked")


#: A state that no later outcome changes.
TERMINAL = frozenset({State.SUCCESS, State.FAILURE, State.REVOKED})
