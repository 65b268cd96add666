from jobs import exceptions
from jobs.worker.record import celery_results


def test_each_error_with_a_name_of_celerys_exists() -> None:
    for name in celery_results._ERRORS:
        assert issubclass(getattr(exceptions, name), exceptions.JobsError)
