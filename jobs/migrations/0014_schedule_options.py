from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0013_mysql_words_and_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="options",
            field=models.JSONField(blank=True, null=True, verbose_name="options"),
        ),
    ]
