from django.db import migrations

from jobs.models import LABEL


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0002_failed_attempts"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="taskresult",
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("retry_taskresult", "Can run failed tasks again"),
                    ("revoke_taskresult", "Can revoke tasks"),
                ],
                "verbose_name": "result",
                "verbose_name_plural": "results",
            },
        ),
    ]
