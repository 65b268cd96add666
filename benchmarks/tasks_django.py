"""The tasks that are measured, for the backend of django-tasks-db."""

from importlib.util import find_spec

from benchmarks import work

if find_spec("django.tasks"):
    from django.tasks import task
else:
    from django_tasks import task


@task(queue_name="bench")
def noop(number: int) -> None:
    work.noop(number)


@task(queue_name="bench")
def echo(number: int) -> int:
    return work.echo(number)


@task(queue_name="bench")
def stamp(at: int) -> None:
    work.stamp(at)
