"""Schedules: which task beat sends, when, and what came of it.

A schedule is *planned* when ``next_run_at`` says when its rule is due next. ``planned_at`` says
when that was worked out, ``planned_for`` (a digest) for which rule.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Iterable
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator
from django.db import connections, models, transaction
from django.db.models import Q
from django.dispatch import Signal
from django.utils.timezone import now as time_now
from django.utils.translation import gettext_lazy as _

from jobs import conf, serialization, timing
from jobs.models.commits import hook_before, is_committed
from jobs.models.moments import MomentField
from jobs.timing import clock

#: What decides when a schedule is due. A change of this list has every row planned anew.
RULE_FIELDS = (
    *("crontab", "interval", "at", "timezone", "start_at", "end_at", "created_at"),
    *("enabled", "paused_until"),
)
#: What planning writes.
PLAN_FIELDS = frozenset(("next_run_at", "planned_for", "planned_at"))
#: What beat writes; an edit leaves it alone.
_BEATS_FIELDS = PLAN_FIELDS | {"last_run_at", "runs", "skipped", "queued_for", "last_result"}

#: The shortest time there is.
_MOMENT = dt.timedelta(microseconds=1)

#: Sent when a change of schedules' next times is committed. Argument: ``using``.
rules_changed = Signal()


def digest_of(values: Iterable[Any]) -> str:
    """A short text for the values of RULE_FIELDS, in their order."""
    parts = [value.timestamp() if isinstance(value, dt.datetime) else value for value in values]
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def is_rule(fields: Iterable[str]) -> bool:
    """Whether one of them is of RULE_FIELDS."""
    return any(field in RULE_FIELDS for field in fields)


class _Announce:
    """A commit hook that tells beat; the first of several in a row does it for all."""

    def __init__(self, using: str, before: _Announce | None) -> None:
        self.using = using
        self.before = before
        self.done = False

    def __call__(self) -> None:
        before = self.before
        told = before is not None and before.done and is_committed(connections[self.using])
        if not self.done and not told:
            rules_changed.send_robust(type(self), using=self.using)
        self.done = True


def announce_at_commit(using: str) -> None:
    """Send `rules_changed` when the current transaction commits, or now when there is none."""
    connection = connections[using]
    before = hook_before(connection, _Announce) if connection.in_atomic_block else None
    transaction.on_commit(_Announce(using, before), using=using)


class Values(models.JSONField):
    """JSON that takes values of every type a call takes, and keeps them in the tagged form that
    messages have."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"encoder": serialization.Encoder, **options})

    def deconstruct(self) -> Any:
        """As `models.JSONField`, whose column it has."""
        name, _path, args, options = super().deconstruct()
        del options["encoder"]
        return name, "django.db.models.JSONField", args, options


class Misfire(models.TextChoices):
    """What to do about due times that passed while no beat ran."""

    SKIP = "skip", _("skip them")
    ONCE = "once", _("run once for all of them")
    ALL = "all", _("run each of them")


class Overlap(models.TextChoices):
    """What to do at a due time when the last run has not ended."""

    ALLOW = "allow", _("run beside it")
    SKIP = "skip", _("skip it")
    QUEUE = "queue", _("run once it has ended")


class ExpiresFrom(models.TextChoices):
    """The moment from which the expiry of a run counts."""

    SENT = "sent", _("the sending")
    DUE = "due", _("the due time")


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    """A rule that is changed past `Schedule.save` is planned anew as well: beat finds the row among
    the `unplanned`."""

    def unplanned(self) -> ScheduleQuerySet:
        """Enabled schedules whose next time is not computed yet."""
        found = self.filter(enabled=True, next_run_at__isnull=True, planned_at__isnull=True)
        return found.order_by("created_at")

    def due(self, now: dt.datetime) -> ScheduleQuerySet:
        return self.filter(enabled=True, next_run_at__lte=now).order_by("next_run_at")

    def queued(self, now: dt.datetime) -> ScheduleQuerySet:
        """Those with a due time that waits for the end of the last run."""
        free = Q(paused_until__isnull=True) | Q(paused_until__lte=now)
        return self.filter(free, enabled=True, queued_for__isnull=False).order_by("queued_for")

    def earliest(self) -> dt.datetime | None:  # type: ignore[override]
        """When the next schedule is due."""
        found = self.filter(enabled=True, next_run_at__isnull=False)
        at: dt.datetime | None = found.aggregate(at=models.Min("next_run_at"))["at"]
        return at

    def update(self, **values: Any) -> int:
        """Plan a new rule anew, unless ``next_run_at`` is given as well. Disabling forgets the due
        time that waits for the end of the last run. `bulk_update` comes here too."""
        if not is_rule(values):
            return super().update(**values)
        values = {"next_run_at": None, "planned_for": "", "planned_at": None, **values}
        if values.get("enabled") is False:
            values["queued_for"] = None
        count = super().update(**values)
        announce_at_commit(self.db)
        return count

    update.alters_data = True  # type: ignore[attr-defined]

    def bulk_create(
        self,
        objs: Iterable[Schedule],
        batch_size: int | None = None,
        ignore_conflicts: bool = False,
        update_conflicts: bool = False,
        update_fields: Collection[str] | None = None,
        unique_fields: Collection[str] | None = None,
    ) -> list[Schedule]:
        """Plan a new rule anew with ``update_conflicts`` as well."""
        if update_fields is not None and is_rule(update_fields):
            update_fields = {*update_fields, *PLAN_FIELDS}
        made = super().bulk_create(
            objs, batch_size, ignore_conflicts, update_conflicts, update_fields, unique_fields
        )
        announce_at_commit(self.db)
        return made

    def delete(self) -> tuple[int, dict[str, int]]:
        deleted = super().delete()
        announce_at_commit(self.db)
        return deleted

    delete.alters_data = True  # type: ignore[attr-defined]
    delete.queryset_only = True  # type: ignore[attr-defined]


class Schedule(models.Model):
    """A recurring rule: which task beat sends, and when.

    Exactly one of ``crontab`` (in ``timezone``), ``interval`` and ``at`` is set. Due times of an
    interval are ``start_at + k * interval`` or, without a start, ``created_at + k * interval``.
    """

    name = models.CharField(_("name"), max_length=200, unique=True)
    description = models.TextField(_("description"), blank=True, default="")
    labels = models.CharField(
        _("labels"),
        max_length=200,
        blank=True,
        default="",
        help_text=_("Words to find it by, with commas between them."),
    )

    # What is sent.
    task = models.CharField(_("task"), max_length=255)
    args = Values(_("arguments"), default=list, blank=True)
    kwargs = Values(_("keyword arguments"), default=dict, blank=True)
    queue = models.CharField(_("queue"), max_length=255, blank=True, default="")
    #: Beside a queue, these only go along. If all three are empty, the task's route counts.
    exchange = models.CharField(_("exchange"), max_length=255, blank=True, default="")
    routing_key = models.CharField(_("routing key"), max_length=255, blank=True, default="")
    #: None: the task's own.
    priority = models.PositiveSmallIntegerField(
        _("priority"), null=True, blank=True, validators=[MaxValueValidator(9)]
    )
    #: A run that no worker has started by then ends as REVOKED.
    expires = models.DurationField(_("expires after"), null=True, blank=True)
    expires_from = models.CharField(
        _("expiry counts from"), max_length=8, choices=ExpiresFrom, default=ExpiresFrom.SENT
    )
    headers = Values(_("headers"), default=dict, blank=True)
    #: Further options of ``apply_async``, in JSON forms. Null: none, for processes that insert
    #: rows and don't know of them yet.
    options = Values(_("options"), null=True, blank=True)

    # When.
    crontab = models.CharField(_("crontab"), max_length=200, blank=True, default="")
    interval = models.DurationField(_("interval"), null=True, blank=True)
    at = MomentField(_("once at"), null=True, blank=True)
    timezone = models.CharField(_("time zone"), max_length=64, default=timing.default_zone)
    #: No due time before it; an interval counts from it.
    start_at = MomentField(_("start"), null=True, blank=True)
    #: No due time after it.
    end_at = MomentField(_("end"), null=True, blank=True)
    enabled = models.BooleanField(_("enabled"), default=True)
    paused_until = MomentField(_("paused until"), null=True, blank=True)

    # What to do when runs are late or overlap.
    misfire = models.CharField(
        _("missed runs"), max_length=8, choices=Misfire, default=Misfire.ONCE
    )
    #: With `Misfire.ALL`: how old a missed due time may be.
    misfire_window = models.DurationField(
        _("how far back"), default=dt.timedelta(days=1), blank=True
    )
    overlap = models.CharField(
        _("while the last run goes on"), max_length=8, choices=Overlap, default=Overlap.ALLOW
    )
    #: Each run starts later than its due time by a random part of this.
    jitter = models.DurationField(_("spread over"), null=True, blank=True)

    # What beat writes.
    created_at = MomentField(_("created"), default=time_now, editable=False)
    next_run_at = MomentField(_("next run"), null=True, blank=True, editable=False)
    #: The rule that `next_run_at` was worked out for, and when. Empty and None: not yet, or the
    #: row was written past `save` with a `next_run_at` of its own.
    planned_for = models.CharField(max_length=16, default="", editable=False)
    planned_at = MomentField(null=True, editable=False)
    last_run_at = MomentField(_("last run"), null=True, blank=True, editable=False)
    #: With `Overlap.QUEUE`: the due time that waits for the end of the last run.
    queued_for = MomentField(_("waits since"), null=True, blank=True, editable=False)
    runs = models.PositiveBigIntegerField(_("runs"), default=0, editable=False)
    #: Due times that were skipped, by `misfire` or by `overlap`.
    skipped = models.PositiveBigIntegerField(_("skipped"), default=0, editable=False)
    #: The call that was sent last.
    last_result = models.CharField(_("last result"), max_length=255, default="", editable=False)

    #: What code declares, by field; None: it was made in the admin.
    declared = models.JSONField(_("declared in code"), null=True, editable=False)
    #: Code declared it once, and does so no more.
    dropped = models.BooleanField(_("dropped from code"), default=False, editable=False)

    objects = ScheduleQuerySet.as_manager()

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering: ClassVar = ["name"]
        permissions: ClassVar = [("run_schedule", _("Can run schedules now"))]
        indexes: ClassVar = [
            # Each tick asks for what is due.
            models.Index(
                fields=["next_run_at"], name="jobs_schedule_due", condition=Q(enabled=True)
            ),
            # Each tick asks which last runs have ended meanwhile. Nearly always empty.
            models.Index(
                fields=["queued_for"],
                name="jobs_schedule_queued",
                condition=Q(queued_for__isnull=False),
            ),
            # Each tick asks for what was written past `save`. Nearly always empty.
            models.Index(
                fields=["created_at"],
                name="jobs_schedule_unplanned",
                condition=Q(enabled=True, next_run_at__isnull=True, planned_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, **options: Any) -> None:
        """If the rule is new, also work out when it is next due, and tell beat.

        An edit under the same rule leaves beat's columns alone: beat may write them meanwhile, and
        a due run must not get lost. Raises `ValidationError` for a rule that isn't valid.
        """
        fields = options.pop("update_fields", None)
        if fields is None and self.pk is not None and not self._state.adding:
            ours = {f.name for f in self._meta.concrete_fields if not f.primary_key}
            fields = ours - _BEATS_FIELDS
        new = fields is None or self._is_new(set(RULE_FIELDS) & set(fields), options.get("using"))
        if new:
            written = self.plan(clock.now())
            fields = None if fields is None else {*fields, *written}
        super().save(update_fields=fields, **options)
        if new:
            announce_at_commit(self._state.db or "default")

    def delete(self, *args: Any, **options: Any) -> tuple[int, dict[str, int]]:
        using = options.get("using") or self._state.db or "default"
        deleted = super().delete(*args, **options)
        announce_at_commit(using)
        return deleted

    def clean(self) -> None:
        """Check everything but whether the arguments suit the task. Raises `ValidationError` by
        field."""
        timing.validate(
            self.crontab,
            self.interval,
            self.timezone,
            at=self.at,
            start=self.start_at,
            end=self.end_at,
        )
        if self.at and clock.aware(self.at) <= clock.now() and self._is_new({"at"}, None):
            raise ValidationError({"at": ValidationError(_("This is past."), code="past")})
        rule = self.rule()
        if rule.following((rule.start or rule.anchor or clock.now()) - _MOMENT) is None:
            problem = ValidationError(_("No run falls before this end."), code="never")
            raise ValidationError({"end_at": problem})
        check_what_is_sent(self)

    def _is_new(self, fields: Iterable[str], using: str | None) -> bool:
        """Whether one of these differs from what is stored."""
        parts = sorted(fields)
        if self._state.adding or not parts:
            return bool(parts)
        stored = Schedule.objects.using(using or self._state.db).filter(pk=self.pk)
        return stored.values_list(*parts).first() != tuple(getattr(self, f) for f in parts)

    # ------------------------------------------------------------------ when it is due

    def rule(self) -> timing.Rule:
        return timing.Rule(
            crontab=self.crontab,
            interval=self.interval,
            at=clock.aware(self.at),
            zone=self.timezone,
            start=clock.aware(self.start_at),
            end=clock.aware(self.end_at),
            anchor=clock.aware(self.created_at),
        )

    def following(self, after: dt.datetime) -> dt.datetime | None:
        """The first due time after this moment; while it is paused, not before the pause ends.

        Raises `ValidationError` for a rule that isn't valid.
        """
        after = clock.aware(after)
        if self.paused_until is not None:
            after = max(after, clock.aware(self.paused_until) - _MOMENT)
        return self.rule().following(after)

    def next_runs(self, now: dt.datetime, count: int) -> list[dt.datetime]:
        """The next due times after now, as if it were enabled, and without jitter. The first one of
        a planned schedule is the planned one.

        Raises `ValidationError` for a rule that isn't valid.
        """
        now = clock.aware(now)
        due = self.following(now)
        planned = clock.aware(self.next_run_at)
        if planned is not None and planned > now and self.planned_for == self.digest():
            due = planned
        found: list[dt.datetime] = []
        rule, pause = self.rule(), clock.aware(self.paused_until)
        while due is not None and len(found) < count:
            found.append(due)
            due = rule.following(due if pause is None else max(due, pause - _MOMENT))
        return found

    def digest(self) -> str:
        """A short text for all that decides when it is due: equal for equal rules."""
        return digest_of(getattr(self, field) for field in RULE_FIELDS)

    def plan(self, now: dt.datetime) -> frozenset[str]:
        """Work out the next time, without saving it; gives the fields that changed.

        Raises `ValidationError` for a rule that isn't valid.
        """
        self.next_run_at = self.following(now) if self.enabled else None
        self.planned_for, self.planned_at = self.digest(), now
        if self.enabled:
            return PLAN_FIELDS
        self.queued_for = None
        return PLAN_FIELDS | {"queued_for"}

    def skip_next(self, now: dt.datetime) -> dt.datetime | None:
        """Skip the next due time, whichever it is by now; gives that time, or None when there is
        none."""
        now = clock.aware(now)
        rows = Schedule.objects.using(self._state.db)
        with transaction.atomic(using=rows.db):
            stored = rows.select_for_update().filter(pk=self.pk, enabled=True).first()
            if stored is None or stored.next_run_at is None:
                return None
            due = stored.next_run_at
            run = ScheduleRun(
                schedule=stored, due_at=due, at=now, outcome=ScheduleRun.Outcome.SKIPPED
            )
            ScheduleRun.objects.using(rows.db).bulk_create([run], ignore_conflicts=True)
            self.next_run_at = stored.following(max(due, now))
            rows.filter(pk=self.pk).update(next_run_at=self.next_run_at)
        return due


class ScheduleRun(models.Model):
    """What came of one due time of a schedule."""

    class Outcome(models.TextChoices):
        SENT = "sent", _("sent")
        #: The last run had not ended.
        OVERLAPPED = "overlapped", _("skipped: the last run went on")
        #: An operator asked for it.
        SKIPPED = "skipped", _("skipped by hand")

    schedule = models.ForeignKey(
        Schedule,
        on_delete=models.CASCADE,
        related_name="history",
        verbose_name=_("schedule"),
    )
    due_at = MomentField(_("due"))
    #: When beat handled it.
    at = MomentField(_("at"))
    outcome = models.CharField(_("outcome"), max_length=10, choices=Outcome, default=Outcome.SENT)
    #: Id of the call; empty when none was sent.
    result = models.CharField(_("result"), max_length=255, default="")

    class Meta:
        verbose_name = _("run of a schedule")
        verbose_name_plural = _("runs of schedules")
        ordering: ClassVar = ["schedule", "-due_at"]
        constraints: ClassVar = [
            # It also serves to read the history of one schedule, newest first.
            models.UniqueConstraint(fields=["schedule", "due_at"], name="jobs_run_once"),
        ]
        indexes: ClassVar = [
            # For pruning.
            models.Index(fields=["at"], name="jobs_run_at"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id}@{self.due_at.isoformat()}"


def check_what_is_sent(schedule: Schedule) -> None:
    """Raises `ValidationError` by field."""
    problems: dict[str, ValidationError] = {}
    for field, kind, words in (
        ("args", list, _('Write a JSON list, such as [17, "text"].')),
        ("kwargs", dict, _('Write a JSON object, such as {"copy": true}.')),
        ("headers", dict, _('Write a JSON object, such as {"tenant": "acme"}.')),
    ):
        if not isinstance(getattr(schedule, field), kind):
            problems[field] = ValidationError(words, code="type")
    if not isinstance(schedule.options, dict | None):
        words = _('Write a JSON object, such as {"time_limit": 60}.')
        problems["options"] = ValidationError(words, code="type")
    for field in ("expires", "jitter", "misfire_window"):
        value = getattr(schedule, field)
        if value is not None and value < dt.timedelta(0):
            problems[field] = ValidationError(_("This can't be negative."), code="negative")
    queues = conf.get().queues
    queue = schedule.queue
    if queue and not conf.get().knows(queue):
        problems["queue"] = ValidationError(
            _("Queue “%(queue)s” is not declared in JOBS['QUEUES'].%(nearest)s"),
            code="queue",
            params={"queue": queue, "nearest": conf.nearest(queue, queues)},
        )
    if problems:
        raise ValidationError(problems)
