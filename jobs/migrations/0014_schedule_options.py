from django.db import migrations, models

from jobs.models import LABEL


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0013_mysql_words_and_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="options",
            field=models.JSONField(blank=True, null=True, verbose_name="options"),
        ),
    ]
