"""The schedule of the nightly summary, as a row that the admin can change."""

from django.conf import settings
from django.db import migrations

NAME = "Nightly summary of the demonstration"


def create(apps, schema_editor):
    schedules = apps.get_model("jobs", "Schedule").objects.using(schema_editor.connection.alias)
    if schedules.filter(name=NAME).exists():
        return
    # When it is next due is for beat to work out: a migration's models have no methods.
    schedules.create(
        name=NAME,
        task="jobsite.demo.tasks.nightly_summary",
        crontab="0 3 * * *",
        timezone=settings.TIME_ZONE,
    )


def remove(apps, schema_editor):
    schedules = apps.get_model("jobs", "Schedule").objects.using(schema_editor.connection.alias)
    schedules.filter(name=NAME).delete()


class Migration(migrations.Migration):
    dependencies = [("demo", "0001_initial"), ("jobs", "0001_initial")]

    operations = [migrations.RunPython(create, remove)]
