"""What is stored for Celery's clients, on every kind of server."""

from jobs.broker.base import Broker, CeleryResult


def test_results_and_parts_of_chords_are_stored(broker: Broker) -> None:
    results = [CeleryResult(f"id-{n}", '{"status": "SUCCESS"}', ended=True) for n in range(3)]
    broker.store_celery_results(results, 60)
    broker.store_celery_results([], None)
    broker.store_celery_parts("group", [(0, "[]"), (1, "[1]")], None)
    assert broker.chord_results("group") is None
    assert broker.chord_size("group") is None
