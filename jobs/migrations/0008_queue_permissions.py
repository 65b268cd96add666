from typing import Any

from django.db import migrations, router

from jobs.models import LABEL

OLD, NEW = "Can requeue and discard dead letters", "Can do everything with queues and dead letters"


def _rename(apps: Any, schema_editor: Any, name: str) -> None:
    """Django makes missing permissions after a migration, and leaves the names of the others."""
    try:
        permissions = apps.get_model("auth", "Permission")
    except LookupError:
        return  # a project without users
    alias = schema_editor.connection.alias
    if router.allow_migrate_model(alias, permissions):
        found = permissions.objects.using(alias).filter(
            content_type__app_label=LABEL, codename="manage_queues"
        )
        found.update(name=name)


def rename(apps: Any, schema_editor: Any) -> None:
    _rename(apps, schema_editor, NEW)


def name_as_before(apps: Any, schema_editor: Any) -> None:
    _rename(apps, schema_editor, OLD)


class Migration(migrations.Migration):
    dependencies = [(LABEL, "0007_ids_by_bytes")]

    operations = [
        migrations.AlterModelOptions(
            name="queues",
            options={
                "default_permissions": (),
                "permissions": [
                    ("view_queues", "Can view queues and dead letters"),
                    ("manage_queues", NEW),
                    ("pause_queues", "Can pause and resume queues and tasks"),
                    ("purge_queues", "Can purge queues"),
                    ("requeue_deadletters", "Can put dead letters back on their queues"),
                    ("discard_deadletters", "Can discard dead letters"),
                ],
                "verbose_name": "queue",
                "verbose_name_plural": "queues",
            },
        ),
        migrations.RunPython(rename, name_as_before, elidable=True),
    ]
