from typing import Any

import django.utils.timezone
from django.db import migrations, models, router

from jobs.models import LABEL

#: Code name of a permission → its old name and its new one.
NAMES = {
    "view_queues": (
        "Can view queues and dead letters",
        "Can view dashboard, queues, tasks, workers and dead letters",
    ),
    "purge_queues": ("Can purge queues", "Can purge queues and delete waiting calls"),
}


def _rename(apps: Any, schema_editor: Any, which: int) -> None:
    """Django makes missing permissions after a migration, and leaves the names of the others."""
    try:
        permissions = apps.get_model("auth", "Permission")
    except LookupError:
        return  # a project without users
    alias = schema_editor.connection.alias
    if router.allow_migrate_model(alias, permissions):
        for code, names in NAMES.items():
            found = permissions.objects.using(alias).filter(
                content_type__app_label=LABEL, codename=code
            )
            found.update(name=names[which])


def rename(apps: Any, schema_editor: Any) -> None:
    _rename(apps, schema_editor, 1)


def name_as_before(apps: Any, schema_editor: Any) -> None:
    _rename(apps, schema_editor, 0)


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0008_queue_permissions"),
    ]

    operations = [
        migrations.CreateModel(
            name="KnownError",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("task", models.CharField(max_length=255, verbose_name="task")),
                ("error_type", models.CharField(max_length=255, verbose_name="exception")),
                ("marked_by", models.CharField(max_length=255, verbose_name="marked by")),
                (
                    "marked_at",
                    models.DateTimeField(default=django.utils.timezone.now, verbose_name="marked"),
                ),
                ("why", models.TextField(default="", verbose_name="reason")),
            ],
            options={
                "verbose_name": "known error",
                "verbose_name_plural": "known errors",
                "default_permissions": (),
            },
        ),
        migrations.CreateModel(
            name="Dashboard",
            fields=[],
            options={
                "verbose_name": "dashboard",
                "verbose_name_plural": "dashboard",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=(f"{LABEL}.taskresult",),
        ),
        migrations.CreateModel(
            name="DeadLetters",
            fields=[],
            options={
                "verbose_name": "dead letter",
                "verbose_name_plural": "dead letters",
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=(f"{LABEL}.taskresult",),
        ),
        migrations.CreateModel(
            name="Errors",
            fields=[],
            options={
                "verbose_name": "error",
                "verbose_name_plural": "errors",
                "permissions": [("mark_errors", "Can mark errors as known")],
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=(f"{LABEL}.taskresult",),
        ),
        migrations.CreateModel(
            name="Tasks",
            fields=[],
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "permissions": [
                    ("run_tasks", "Can run tasks with arguments of their choice"),
                    ("rate_tasks", "Can change the rates of tasks"),
                ],
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=(f"{LABEL}.taskresult",),
        ),
        migrations.CreateModel(
            name="Workers",
            fields=[],
            options={
                "verbose_name": "worker",
                "verbose_name_plural": "workers",
                "permissions": [
                    (
                        "control_workers",
                        "Can control workers and see what their threads do",
                    )
                ],
                "proxy": True,
                "default_permissions": (),
                "indexes": [],
                "constraints": [],
            },
            bases=(f"{LABEL}.taskresult",),
        ),
        migrations.AlterModelOptions(
            name="queues",
            options={
                "default_permissions": (),
                "permissions": [
                    ("view_queues", "Can view dashboard, queues, tasks, workers and dead letters"),
                    ("manage_queues", "Can do everything with queues and dead letters"),
                    ("pause_queues", "Can pause and resume queues and tasks"),
                    ("purge_queues", "Can purge queues and delete waiting calls"),
                    ("move_calls", "Can move waiting calls to another queue"),
                    ("hasten_calls", "Can run calls now that are due later"),
                    ("requeue_deadletters", "Can put dead letters back on their queues"),
                    ("discard_deadletters", "Can discard dead letters"),
                ],
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
            },
        ),
        migrations.AlterModelOptions(
            name="taskresult",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("retry_taskresult", "Can run failed tasks again"),
                    ("edit_taskresult", "Can run tasks again with other arguments"),
                    ("revoke_taskresult", "Can revoke tasks"),
                ],
                "verbose_name": "result",
                "verbose_name_plural": "results",
            },
        ),
        migrations.AddField(
            model_name="taskattempt",
            name="reopened_at",
            field=models.DateTimeField(null=True, verbose_name="run again"),
        ),
        migrations.AddField(
            model_name="taskattempt",
            name="reopened_by",
            field=models.CharField(default="", max_length=255, verbose_name="run again by"),
        ),
        migrations.AddField(
            model_name="taskattempt",
            name="retry_at",
            field=models.DateTimeField(null=True, verbose_name="next attempt"),
        ),
        migrations.AddIndex(
            model_name="taskresult",
            index=models.Index(
                condition=models.Q(("error_type", ""), _negated=True),
                fields=["error_type", "-id", "task"],
                name="jobs_result_error",
            ),
        ),
        migrations.AddConstraint(
            model_name="knownerror",
            constraint=models.UniqueConstraint(
                fields=("task", "error_type"), name="jobs_known_error_once"
            ),
        ),
        migrations.RunPython(rename, name_as_before, elidable=True),
    ]
