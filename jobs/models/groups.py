"""Chords whose members haven't all ended, or not all well: the counters that join them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from django.db import connections, models
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from jobs.models.moments import MomentField


class CountedDown(NamedTuple):
    """What became of some counters."""

    #: Ids of those that there are.
    known: set[str]
    #: Those whose members have all ended now.
    full: list[TaskGroup]
    #: Those of which it isn't known how many members they have.
    unsized: list[TaskGroup]


class TaskGroupQuerySet(models.QuerySet["TaskGroup"]):
    def count_down(self, ended: Mapping[str, int]) -> CountedDown:
        """``ended``: group → how many of its members have newly ended.

        To be called in the transaction that records those ends, after it has recorded them: from
        here on others that record members of these groups wait for it.
        """
        # In one order, so that of two batches with the same groups none waits for the other.
        rows = self.filter(id__in=list(ended)).order_by("id").only("size", "remaining")
        if connections[self.db].features.has_select_for_update:
            rows = rows.select_for_update()
        found = list(rows)
        alike: dict[int, list[str]] = defaultdict(list)
        for row in found:
            alike[ended[row.id]].append(row.id)
        for count, ids in alike.items():
            self.filter(id__in=ids).update(remaining=F("remaining") - count)
        for row in found:
            row.remaining -= ended[row.id]
        full = [row for row in found if row.size and not row.remaining]
        if full:
            # Read where it is written: what loads a deferred field by itself asks the router.
            ids = [row.id for row in full]
            bodies = dict(self.filter(id__in=ids).values_list("id", "body"))
            for row in full:
                row.body = bodies[row.id]
        return CountedDown({row.id for row in found}, full, [row for row in found if not row.size])

    def set_size(self, group: TaskGroup, size: int) -> bool:
        """Say how many members a group has that was counted down so far from nothing; whether all
        of them have ended. In the transaction that has just counted it down."""
        group.size, group.remaining = size, group.remaining + size
        self.filter(id=group.id).update(size=group.size, remaining=group.remaining)
        if not group.remaining:
            group.body = self.values_list("body", flat=True).get(id=group.id)
        return not group.remaining


class TaskGroup(models.Model):
    """The members of a chord's header: how many have not ended yet, and what comes then.

    Deleted when the body is sent. Its members are the results with its id as their `group_id`.
    """

    id = models.CharField(_("id"), primary_key=True, max_length=255)
    #: 0: not known yet. It is then counted down from nothing.
    size = models.PositiveIntegerField(_("members"))
    remaining = models.IntegerField(_("not ended yet"))
    #: The body, in Celery's JSON form (see `jobs.workflow`).
    body = models.TextField(_("body"))
    created_at = MomentField(_("sent"), default=timezone.now)

    objects = TaskGroupQuerySet.as_manager()

    class Meta:
        verbose_name = _("chord")
        verbose_name_plural = _("chords")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.id}: {self.remaining} of {self.size}"
