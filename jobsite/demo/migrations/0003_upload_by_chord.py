from django.db import migrations, models


def id_field(name):
    return models.CharField(blank=True, default="", max_length=255, verbose_name=name)


class Migration(migrations.Migration):
    dependencies = [("demo", "0002_nightly_summary")]

    operations = [
        migrations.RemoveField(model_name="upload", name="lines_read"),
        migrations.AddField(model_name="upload", name="group_id", field=id_field("group")),
        migrations.AddField(model_name="upload", name="body_id", field=id_field("body")),
    ]
