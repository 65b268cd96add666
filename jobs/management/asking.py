"""A question before something is destroyed."""

from __future__ import annotations

from django.core.management.base import CommandError
from django.utils.translation import gettext as _


def is_sure(question: str) -> bool:
    """Whether somebody at the terminal says yes."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise CommandError(
            _("Nobody is there to ask. Use --yes to delete without a question.")
        ) from None
