"""Celery's own command line, which reads commands from its standard input.

`python commands.py URL SERVICE`, the service being that of Sentinels, or empty. Each line is a list
of arguments in JSON, as after `celery -A proj`. The answer is a line with the exit status and what
was printed. One process for many commands, since each start takes a second.
"""

from __future__ import annotations

import json
import sys

from celery import Celery
from celery.bin.celery import celery as command_line
from celery.worker.control import control_command
from click.testing import CliRunner

url, service = sys.argv[1:]
app = Celery("proj", broker=url, set_as_current=True)
if service:
    app.conf.broker_transport_options = {"master_name": service}


@control_command(args=[("number", int)], signature="[N=3]")
def own_command_of_tests(state: object, number: int = 3) -> None:
    """Celery's command line knows what is declared here; our workers know what tests/tasks.py
    declares."""


for line in sys.stdin:
    ran = CliRunner().invoke(command_line, ["-A", "__main__:app", *json.loads(line)])
    said = ran.output or repr(ran.exception)
    sys.stdout.write(json.dumps([ran.exit_code, said]) + "\n")
    sys.stdout.flush()
