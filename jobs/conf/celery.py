"""``JOBS["CELERY"]``: settings in Celery's words, read as this app's own. Celery isn't imported."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings

from jobs.conf import address
from jobs.conf.values import nearest, with_plain_queues
from jobs.exceptions import shown


class Setting(NamedTuple):
    """What becomes of one of Celery's settings."""

    #: Where it goes: a key of ``JOBS``, with a part of it; empty: nowhere.
    ours: str = ""
    #: What to write in its place or, if ``needless``, why nothing is.
    instead: str = ""
    #: Whatever its value: nothing has to be done.
    needless: bool = False
    #: Values that ask for what is done anyway.
    harmless: tuple[object, ...] = ()


def _read(ours: str, instead: str = "") -> Setting:
    return Setting(ours=ours, instead=instead)


def _needless(why: str) -> Setting:
    return Setting(instead=why, needless=True)


def _not_here(instead: str, *harmless: object) -> Setting:
    return Setting(instead=instead, harmless=harmless)


_CONNECTIONS = "each thread has a connection of its own"
_JSON = "messages and results are JSON"
_LEDGER = "results are in the ledger, in Django's database"
_LOGGING = "Django's `LOGGING`, as in the web server"
_RECONNECT = "workers wait for Redis and go on; senders by `RETRY_POLICY`"
_ADDRESS = "in `BROKER_URL`"
_SIGNED = "messages are signed with `SECRET_KEY`"
_STRAY = "`runworker` looks after its children itself"

#: Celery's settings by their new names in lower case.
SETTINGS: Mapping[str, Setting] = {
    # broker
    "broker_url": _read("`BROKER_URL`", "a server of Redis: `redis://`, `rediss://`"),
    "broker_transport_options": _read(
        "`KEY_PREFIX` from `global_keyprefix`, `PRIORITY_STEPS` from `priority_steps`",
        "nothing for `visibility_timeout`; `BROKER_URL` for Sentinels; no other option",
    ),
    "broker_use_ssl": _not_here("`rediss://` in `BROKER_URL`", False, None),
    **dict.fromkeys(
        [f"broker_{name}" for name in ("read_url", "write_url", "host", "port", "user")],
        _not_here(_ADDRESS, None),
    ),
    **dict.fromkeys(
        [f"broker_{name}" for name in ("password", "vhost", "transport", "failover_strategy")],
        _not_here(_ADDRESS, None),
    ),
    **dict.fromkeys(["broker_pool_limit", "broker_pool_acquire_timeout"], _needless(_CONNECTIONS)),
    "broker_connection_timeout": _not_here("`SOCKET_TIMEOUT`"),
    **dict.fromkeys(
        [
            *("broker_connection_retry", "broker_connection_retry_on_startup"),
            *("broker_connection_max_retries", "broker_channel_error_retry"),
        ],
        _needless(_RECONNECT),
    ),
    **dict.fromkeys(
        [
            *("broker_heartbeat", "broker_heartbeat_checkrate", "broker_login_method"),
            "broker_native_delayed_delivery_queue_type",
        ],
        _needless("of AMQP alone"),
    ),
    # queues and routes
    "task_default_queue": _read("`DEFAULT_QUEUE`; without it `celery`, as in Celery"),
    "task_queues": _read("`QUEUES` and `EXCHANGES`"),
    "task_default_exchange": _read("`DEFAULT_EXCHANGE`, `EXCHANGES`"),
    "task_default_exchange_type": _read("`EXCHANGES`"),
    "task_default_routing_key": _read("`QUEUES`: the binding of the default queue"),
    "task_create_missing_queues": _read("`CREATE_MISSING_QUEUES`; without it on, as in Celery"),
    "task_routes": _read("`TASK_ROUTES`"),
    "task_default_priority": _read("`TASK_OPTIONS`"),
    "task_publish_retry": _read("`RETRY_POLICY`"),
    "task_publish_retry_policy": _read("`RETRY_POLICY`"),
    "task_queue_max_priority": _needless("every queue has the priorities 0 to 9"),
    "task_inherit_parent_priority": _not_here("`priority=` at the call", False),
    "task_default_delivery_mode": _needless("messages are kept as Redis keeps its data"),
    **dict.fromkeys(
        [
            *("task_default_queue_type", "task_create_missing_queue_type"),
            *("worker_detect_quorum_queues", "task_protocol"),
        ],
        _needless("Redis has one kind of queue, and messages one form"),
    ),
    "task_create_missing_queue_exchange_type": _not_here("`EXCHANGES`", None),
    "worker_direct": _not_here("a queue for each machine in `QUEUES`", False),
    # tasks
    "task_annotations": _read("`TASK_OPTIONS`", "classes and functions: options of the decorator"),
    "task_time_limit": _read("`TASK_OPTIONS`"),
    "task_soft_time_limit": _read("`TASK_OPTIONS`"),
    "task_default_rate_limit": _read("`TASK_OPTIONS`; for the whole fleet, not each process"),
    "task_ignore_result": _read("`TASK_OPTIONS`"),
    "task_store_errors_even_if_ignored": _read("`TASK_OPTIONS`"),
    "task_acks_late": _read("`TASK_OPTIONS`; without it on, unlike in Celery"),
    "task_reject_on_worker_lost": _read("`TASK_OPTIONS`; without it on, unlike in Celery"),
    "task_retry_on_worker_lost": _needless("a call goes on after its worker was lost"),
    "task_track_started": _read("`TRACK_STARTED`"),
    "task_always_eager": _read("`ALWAYS_EAGER`"),
    "task_eager_propagates": _read("`EAGER_PROPAGATES`"),
    "task_store_eager_result": _not_here("`run_jobs()` in a test leaves rows", False),
    **dict.fromkeys(
        ["task_acks_on_failure_or_timeout", "task_acks_on_failure", "task_acks_on_timeout"],
        _not_here("raise `Reject` in the task", True, None),
    ),
    "task_allow_error_cb_on_chord_header": _not_here("`link_error` on the header's calls", False),
    "task_remote_tracebacks": _needless("the ledger keeps each attempt's traceback"),
    "task_repr_maxlevels": _needless("arguments are shown in full, up to a length"),
    "task_compression": _needless("messages are not compressed"),
    "task_serializer": _not_here(_JSON, "json"),
    "accept_content": _not_here(_JSON, ["json"], ("json",), ["application/json"], {"json"}),
    "task_send_sent_event": _not_here("the signal `task_enqueued`", False),
    "imports": _not_here("tasks are in the module `tasks` of each app, or `TASK_MODULE`", (), []),
    "include": _not_here("tasks are in the module `tasks` of each app, or `TASK_MODULE`", (), []),
    # time
    "timezone": _not_here("Django's `TIME_ZONE`, or `jobs.crontab(…, timezone=…)`", None),
    "enable_utc": _needless("times are stored with their zone"),
    # beat
    "beat_schedule": _read("`BEAT_SCHEDULE`"),
    "beat_scheduler": _needless("schedules are rows; `jobs_import_celery_beat` imports others"),
    **dict.fromkeys(
        ["beat_schedule_filename", "beat_sync_every", "beat_max_loop_interval"],
        _needless("schedules are rows"),
    ),
    **dict.fromkeys(
        ["beat_enable_remote_control", "beat_remote_control_max_tick_age"],
        _needless("the admin shows what beat does"),
    ),
    "beat_cron_starting_deadline": _not_here("`misfire` of a schedule", None),
    # results
    "result_expires": _read("`RESULT_EXPIRES`"),
    "result_failure_expires": _not_here('`RESULT_EXPIRES = {"FAILURE": …}`', None),
    "result_backend": _read(
        "`CELERY_RESULT_BACKEND`, for queues with `foreign_workers`, if it is on Redis", _LEDGER
    ),
    "result_extended": _needless("a row has name, arguments, queue and worker"),
    "result_serializer": _not_here(_JSON, "json"),
    "result_accept_content": _not_here(_JSON, None, ["json"], ("json",)),
    # worker
    "worker_concurrency": _not_here("`runworker --processes N`, with `--threads M`", None),
    "worker_pool": _not_here("`runworker --threads M` or `async def` tasks", "prefork"),
    "worker_autoscaler": _not_here("more or fewer workers, from outside"),
    "worker_max_tasks_per_child": _read("`MAX_TASKS_PER_CHILD`"),
    "worker_max_memory_per_child": _read("`MAX_MEMORY_PER_CHILD`"),
    "worker_prefetch_multiplier": _needless("a worker claims what takes it about 50 ms"),
    **dict.fromkeys(
        ["worker_disable_prefetch", "worker_enable_prefetch_count_reduction"],
        _needless("a worker claims what takes it about 50 ms"),
    ),
    "worker_eta_task_limit": _needless("calls wait for their time on Redis"),
    "worker_soft_shutdown_timeout": _not_here("`GRACE_SECONDS`", 0, 0.0),
    "worker_enable_soft_shutdown_on_idle": _needless("a stopping worker gives back what waits"),
    "worker_disable_rate_limits": _not_here("`jobs_rate_limit TASK none`", False),
    "worker_state_db": _needless("revocations are on Redis"),
    "worker_deduplicate_successful_tasks": _needless(
        "the ledger is asked whether a call has ended"
    ),
    "worker_cancel_long_running_tasks_on_connection_loss": _needless(
        "a task goes on while Redis is away"
    ),
    **dict.fromkeys(
        ["worker_pool_putlocks", "worker_pool_restarts", "worker_lost_wait"], _needless(_STRAY)
    ),
    **dict.fromkeys(
        [
            *("worker_proc_alive_timeout", "worker_pool_start_method", "worker_timer"),
            *("worker_timer_precision", "worker_agent", "worker_consumer"),
        ],
        _needless(_STRAY),
    ),
    "worker_send_task_events": _read("`CELERY_EVENTS`"),
    "worker_enable_remote_control": _not_here("`CELERY_CONTROL`, which is off by itself", False),
    **dict.fromkeys(
        [
            *("worker_hijack_root_logger", "worker_log_color", "worker_log_datefmt"),
            *("worker_log_format", "worker_task_log_datefmt", "worker_task_log_format"),
        ],
        _needless(_LOGGING),
    ),
    **dict.fromkeys(
        ["worker_redirect_stdouts", "worker_redirect_stdouts_level"],
        _needless("what tasks print stays what it is"),
    ),
}

#: Whole families of settings, by what their names begin with.
FAMILIES: Mapping[str, Setting] = {
    "result_": _needless(_LEDGER),
    **dict.fromkeys(
        [
            *("arangodb_", "azureblockblob_", "cache_", "cassandra_", "cosmosdbsql_"),
            *("couchbase_", "database_", "elasticsearch_", "gcs_", "mongodb_", "redis_", "s3_"),
        ],
        _needless(_LEDGER),
    ),
    "security_": _needless(_SIGNED),
    "event_": _needless("`CELERY_EVENTS` says whether events are sent"),
    "control_": _needless("`CELERY_CONTROL` says which commands are obeyed"),
}

#: Old names that no rule makes new ones of.
_OLD = {
    "celery_task_result_expires": "result_expires",
    "celery_max_cached_results": "result_cache_max",
    "celery_message_compression": "task_compression",
    "celery_eager_propagates_exceptions": "task_eager_propagates",
    "celery_send_task_sent_event": "task_send_sent_event",
    "celery_send_events": "worker_send_task_events",
    "celery_disable_rate_limits": "worker_disable_rate_limits",
    "celery_enable_remote_control": "worker_enable_remote_control",
    "celery_redirect_stdouts": "worker_redirect_stdouts",
    "celery_redirect_stdouts_level": "worker_redirect_stdouts_level",
}

_UNSET = object()


def new_name(name: str) -> str:
    """Celery's setting in its new form, in lower case: of ``CELERY_TASK_ROUTES`` (a namespace),
    ``CELERY_ROUTES`` and ``CELERYBEAT_SCHEDULE`` (before Celery 4). Empty: it is none."""
    name = name.lower()
    tried = [name, _OLD.get(name, "")]
    for prefix, parts in (
        ("celery_", ("", "task_")),
        ("celerybeat_", ("beat_",)),
        ("celeryd_", ("worker_", "")),
    ):
        if name.startswith(prefix):
            tried += [part + name.removeprefix(prefix) for part in parts]
    known = [one for one in tried if one in SETTINGS]
    return (known or [one for one in tried if one.startswith(tuple(FAMILIES))] or [""])[0]


def setting(name: str) -> Setting | None:
    """What becomes of a setting, by its new name; None: it isn't Celery's."""
    if name in SETTINGS:
        return SETTINGS[name]
    return next((one for start, one in FAMILIES.items() if name.startswith(start)), None)


def told(one: Setting) -> str:
    """What becomes of a setting, in words; names in backticks."""
    if one.needless:
        return f"nothing to do: {one.instead}"
    if one.ours:
        return f"{one.ours}. Otherwise: {one.instead}" if one.instead else one.ours
    return f"not read; instead: {one.instead}"


class Reading(NamedTuple):
    """Celery's settings, read."""

    #: Keys of ``JOBS`` with their values.
    jobs: dict[str, Any]
    #: A sentence for each setting that has no equal.
    notes: list[str]


def read(given: Any) -> Reading:
    """Read ``JOBS["CELERY"]``: a dict with Celery's names, old or new; the ``conf`` of an app; or
    text, the namespace of Celery's settings among Django's, as Celery's ``config_from_object``
    takes it.

    Raises `TypeError` for anything else.
    """
    if isinstance(given, str) and given:
        values, notes = _of_django(given)
    elif isinstance(given, Mapping):
        values, notes = _values(given)
    else:
        raise TypeError(
            "must be a dict of Celery's settings, the conf of a Celery app, or their namespace in "
            f"Django's settings, such as 'CELERY', not {shown(given)}"
        )
    jobs: dict[str, Any] = {}
    notes += [
        f"{name} = {shown(value)} can't be followed here; instead: "
        f"{SETTINGS[name].instead.replace('`', '')}."
        for name, value in values.items()
        if not is_followed(name, value)
    ]
    _read_broker(values, jobs, notes)
    _read_result_backend(values, jobs, notes)
    _read_queues(values, jobs, notes)
    _read_options(values, jobs, notes)
    for name, ours in _PLAIN.items():
        if values.get(name) is not None:
            jobs[ours] = values[name]
    if "result_expires" in values:
        expires = values["result_expires"]
        never = expires in (0, dt.timedelta(0))
        jobs["RESULT_EXPIRES"] = None if never else expires
    return Reading(jobs, notes)


def is_followed(name: str, value: Any) -> bool:
    """Whether a setting (by its new name) with this value is read, or says what is so anyway."""
    known = setting(name)
    if known is None or known.needless or known.ours or value is None:
        return True
    if name == "timezone" and str(value) == settings.TIME_ZONE:
        return True
    return any(type(value) is type(one) and value == one for one in known.harmless)


#: Settings whose values are the same here.
_PLAIN = {
    "task_routes": "TASK_ROUTES",
    "task_track_started": "TRACK_STARTED",
    "task_always_eager": "ALWAYS_EAGER",
    "task_eager_propagates": "EAGER_PROPAGATES",
    "beat_schedule": "BEAT_SCHEDULE",
    "worker_send_task_events": "CELERY_EVENTS",
    "worker_max_tasks_per_child": "MAX_TASKS_PER_CHILD",
    "worker_max_memory_per_child": "MAX_MEMORY_PER_CHILD",
}


def _values(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """New name → value of what is set, and a sentence for each name that isn't Celery's."""
    if hasattr(given, "maps"):  # the conf of an app: it answers for every name
        found = {name: given.get(name, _UNSET) for name in SETTINGS}
        # Its defaults, which are there when it was asked for the first time.
        usual = {new_name(str(name)): value for name, value in given.maps[-1].items()}
        return {
            name: value
            for name, value in found.items()
            if value is not _UNSET and value != usual.get(name, _UNSET)
        }, []
    values, notes = {}, []
    for name, value in given.items():
        if known := new_name(str(name)):
            values[known] = value
        else:
            notes.append(f"{name} isn't a setting of Celery's.{nearest(str(name), SETTINGS)}")
    return values, notes


def _of_django(namespace: str) -> tuple[dict[str, Any], list[str]]:
    """The same for Django's settings that begin with this."""
    values, notes = {}, []
    for name in dir(settings):
        if not name.startswith(namespace):
            continue
        if known := new_name(name.removeprefix(f"{namespace}_")) or new_name(name):
            values[known] = getattr(settings, name)
        else:
            notes.append(f"{name} isn't a setting of Celery's, and is left alone.")
    if not (values or notes):
        notes.append(f"no setting of Django's begins with {namespace!r}.")
    return values, notes


def _read_broker(values: Mapping[str, Any], jobs: dict[str, Any], notes: list[str]) -> None:
    url = values.get("broker_url")
    if isinstance(url, str) and url.startswith(("redis://", "rediss://", "unix://")):
        jobs["BROKER_URL"] = url
    elif url:
        notes.append(
            "broker_url isn't the address of one server of Redis; give JOBS['BROKER_URL'], which "
            "may also name Sentinels (redis+sentinel://) or a Cluster."
        )
    options = values.get("broker_transport_options") or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"has broker_transport_options {shown(options)}, which must be a dict")
    options = dict(options)
    options.pop("visibility_timeout", None)
    for name, ours in (("global_keyprefix", "KEY_PREFIX"), ("priority_steps", "PRIORITY_STEPS")):
        if options.get(name):
            jobs[ours] = options[name]
        options.pop(name, None)
    notes += [f"broker_transport_options[{name!r}] can't be followed here." for name in options]
    policy = values.get("task_publish_retry_policy")
    if policy is not None:
        jobs["RETRY_POLICY"] = policy
    if values.get("task_publish_retry") is False:
        jobs["RETRY_POLICY"] = {"max_retries": 0}


def _read_result_backend(values: Mapping[str, Any], jobs: dict[str, Any], notes: list[str]) -> None:
    url = values.get("result_backend")
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        return
    try:
        jobs["CELERY_RESULT_BACKEND"] = address.read_server(url)
    except ValueError as error:  # most projects need none, so this must not stop them
        notes.append(
            f"result_backend {error}. It is needed for queues with foreign_workers alone: leave it "
            "out, or give JOBS['CELERY_RESULT_BACKEND']."
        )


def _read_queues(values: Mapping[str, Any], jobs: dict[str, Any], notes: list[str]) -> None:
    default = values.get("task_default_queue") or "celery"
    exchange = values.get("task_default_exchange") or ""
    exchange = getattr(exchange, "name", exchange)
    given = values.get("task_queues") or {}
    if isinstance(given, Mapping):
        given = [{"name": name, **(options or {})} for name, options in given.items()]
    queues: dict[str, Any] = {}
    exchanges: dict[str, str] = {}
    for one in given:
        if not isinstance(one, Mapping):
            plain = with_plain_queues({"QUEUES": [one]})
            queues |= plain["QUEUES"]
            exchanges = {**plain["EXCHANGES"], **exchanges}
            continue
        options = {name: value for name, value in one.items() if value is not None}
        name, its_exchange = options.pop("name", ""), options.pop("exchange", "")
        kind = options.pop("exchange_type", None) or getattr(its_exchange, "type", "direct")
        its_exchange = getattr(its_exchange, "name", its_exchange)
        key = options.pop("routing_key", None) or options.pop("binding_key", "")
        queues[name] = {"exchange": its_exchange, "routing_key": key} if its_exchange else {}
        if its_exchange:
            exchanges.setdefault(its_exchange, kind)
        notes += [f"task_queues: {what!r} of {name!r} has no equal here." for what in options]
    if exchange:
        jobs["DEFAULT_EXCHANGE"] = exchange
        exchanges.setdefault(exchange, values.get("task_default_exchange_type") or "direct")
    if default not in queues:
        key = values.get("task_default_routing_key") or ""
        queues[default] = {"exchange": exchange, "routing_key": key} if exchange else {}
    jobs["DEFAULT_QUEUE"] = default
    jobs["QUEUES"], jobs["EXCHANGES"] = queues, exchanges
    creates = values.get("task_create_missing_queues")
    jobs["CREATE_MISSING_QUEUES"] = True if creates is None else creates


#: Settings that are options of every task here.
_OF_TASKS = {
    "task_time_limit": "time_limit",
    "task_soft_time_limit": "soft_time_limit",
    "task_default_rate_limit": "rate_limit",
    "task_default_priority": "priority",
    "task_ignore_result": "ignore_result",
    "task_store_errors_even_if_ignored": "store_errors_even_if_ignored",
    "task_acks_late": "acks_late",
    "task_reject_on_worker_lost": "reject_on_worker_lost",
}


def _read_options(values: Mapping[str, Any], jobs: dict[str, Any], notes: list[str]) -> None:
    every = {ours: values[name] for name, ours in _OF_TASKS.items() if values.get(name) is not None}
    found: dict[str, Any] = {"*": every} if every else {}
    given = values.get("task_annotations") or ()
    for one in given if isinstance(given, list | tuple) else (given,):
        if not isinstance(one, Mapping):
            notes.append(
                f"task_annotations has {shown(one)}; only dicts are followed. Write options of the "
                "decorator."
            )
            continue
        for task, options in one.items():
            found[task] = {**found.get(task, {}), **options}
    if found:
        jobs["TASK_OPTIONS"] = found
