from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0012_label_indexes"),
    ]

    operations = [
        migrations.AddField(
            model_name="schedule",
            name="options",
            field=models.JSONField(blank=True, null=True, verbose_name="options"),
        ),
    ]
