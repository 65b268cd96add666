from django.db import migrations, models

from jobs.models import LABEL


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0010_fewer_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="taskattempt",
            name="eta",
            field=models.DateTimeField(null=True, verbose_name="not before"),
        ),
        migrations.AddField(
            model_name="taskresult",
            name="label",
            field=models.CharField(
                blank=True, db_default="", default="", max_length=200, verbose_name="label"
            ),
        ),
    ]
