"""What docs/operating.md takes for granted."""

from jobs import task


@task(queue="mail")
def send_receipt(pk: int) -> None: ...


task_id = "01a21fd3-1771-7296-9054-3d80dfd506be"
