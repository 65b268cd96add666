from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from jobs.models import LABEL


def keep_meaning(apps: Apps, editor: BaseDatabaseSchemaEditor) -> None:
    """What is there counts from the due time, as it did when it was written."""
    rows = apps.get_model(LABEL, "Schedule").objects.using(editor.connection.alias)
    rows.filter(expires__isnull=False).update(expires_from="due")


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0005_task_groups"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="exchange",
            field=models.CharField(blank=True, default="", max_length=255, verbose_name="exchange"),
        ),
        migrations.AddField(
            model_name="schedule",
            name="routing_key",
            field=models.CharField(
                blank=True, default="", max_length=255, verbose_name="routing key"
            ),
        ),
        migrations.AddField(
            model_name="schedule",
            name="expires_from",
            field=models.CharField(
                choices=[("sent", "the sending"), ("due", "the due time")],
                default="sent",
                max_length=8,
                verbose_name="expiry counts from",
            ),
        ),
        migrations.RunPython(keep_meaning, migrations.RunPython.noop, elidable=True),
    ]
