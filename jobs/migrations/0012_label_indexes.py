from typing import Any

from django.db import migrations, models

from jobs.migrations import _indexes
from jobs.models import LABEL

LABELS = models.Index(
    fields=["label", "-id"], name="jobs_result_label", condition=~models.Q(label="")
)
DUE = models.Index(
    fields=["eta", "id"],
    name="jobs_result_due",
    condition=models.Q(eta__isnull=False, finished_at__isnull=True),
)


def add(apps: Any, schema_editor: Any) -> None:
    result = apps.get_model(LABEL, "TaskResult")
    for index in (LABELS, DUE):
        _indexes.make(schema_editor, result, index)


def remove(apps: Any, schema_editor: Any) -> None:
    result = apps.get_model(LABEL, "TaskResult")
    for index in (LABELS, DUE):
        if schema_editor.connection.vendor == "postgresql":
            _indexes.drop(schema_editor, result, index.name)
        else:
            schema_editor.remove_index(result, index)


class Migration(migrations.Migration):
    dependencies = [
        (LABEL, "0011_labels"),
    ]

    # PostgreSQL makes and drops indexes concurrently only outside a transaction.
    atomic = False

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunPython(add, remove, hints={"model_name": "taskresult"})
            ],
            state_operations=[
                migrations.AddIndex(model_name="taskresult", index=LABELS),
                migrations.AddIndex(model_name="taskresult", index=DUE),
            ],
        ),
    ]
