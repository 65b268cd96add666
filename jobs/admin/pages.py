"""What pages without a table have in common: who may see them, and what they write to the log."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext as _

from jobs.admin.verbs import Verb, VerbAdmin, why
from jobs.models import LABEL, Queues

#: The acts of `Queues`: whoever has one of them may look as well, and `manage_queues` is all.
QUEUE_ACTS = tuple(code for code, _name in Queues._meta.permissions)


def may_look(request: HttpRequest) -> bool:
    """Whether this person may see what is on the broker: queues, workers, tasks, dead letters."""
    return any(request.user.has_perm(f"{LABEL}.{code}") for code in QUEUE_ACTS)


class PageAdmin(VerbAdmin):
    """A page of what the broker has: nobody adds, changes or deletes a row there."""

    class Media:
        css = {"all": ["jobs/admin.css"]}

    # ------------------------------------------------------------------ permissions

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return may_look(request)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def may(self, request: HttpRequest, verb: Verb) -> bool:
        every = verb.permission in QUEUE_ACTS and request.user.has_perm(f"{LABEL}.manage_queues")
        return every or super().may(request, verb)

    def check_may_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    # ------------------------------------------------------------------ the log

    def log_act(self, request: HttpRequest, verb: Verb, key: str, name: str, said: str) -> None:
        """Write to the admin's log what was done to a thing without a row, and why.

        ``key``: what finds its entries again, such as the queue's name. ``name``: how the log calls
        it.
        """
        if reason := why(request):
            said = _("%(said)s Reason: %(why)s") % {"said": said, "why": reason}
        assert request.user.is_authenticated  # or it had no permission
        LogEntry.objects.create(
            user=request.user,
            content_type=self.content_type(),
            # An address can name a thing that there isn't, and PostgreSQL stores no NUL.
            object_id=key.replace("\0", ""),
            object_repr=name.replace("\0", "")[:200],
            action_flag=DELETION if verb.destroys else CHANGE,
            change_message=said.replace("\0", ""),
        )

    def content_type(self) -> ContentType:
        # Its own, not that of the results, of which it is a proxy.
        return ContentType.objects.get_for_model(self.model, for_concrete_model=False)
