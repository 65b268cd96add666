"""A worker as Celery's clients see it: it answers their commands, and sends them events.

================  =========================================================
`state`           who the worker is, and what it runs
`panel`           the commands
`listener`        the supervisor's thread that takes commands and sends the worker's events
`ends`            the supervisor's thread that records what Celery's own workers have run
`events`          the events of calls that have ended, sent by the children
================  =========================================================
"""
