from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("demo", "0002_nightly_summary")]

    operations = [
        migrations.RemoveField(model_name="upload", name="lines_read"),
        migrations.AddField(
            model_name="upload",
            name="group_id",
            field=models.CharField(blank=True, default="", max_length=255, verbose_name="group"),
        ),
    ]
