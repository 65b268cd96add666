from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0009_operators_view"),
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
        migrations.AddIndex(
            model_name="taskresult",
            index=models.Index(
                condition=models.Q(("label", ""), _negated=True),
                fields=["label", "-id"],
                name="jobs_result_label",
            ),
        ),
        migrations.AddIndex(
            model_name="taskresult",
            index=models.Index(
                condition=models.Q(("eta__isnull", False), ("finished_at__isnull", True)),
                fields=["eta", "id"],
                name="jobs_result_due",
            ),
        ),
    ]
