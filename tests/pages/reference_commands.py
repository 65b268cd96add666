"""What docs/reference/commands.md takes for granted."""

from jobs import task


@task
def send_mail(pk: int) -> None: ...


@task
def bill(pk: int, draft: bool = False) -> None: ...
