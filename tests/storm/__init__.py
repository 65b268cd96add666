"""Everything that can be killed is killed at random while tasks run, and the promises are counted.

``make storm``, or ``python -m tests.storm --help``. Senders send tasks in transactions that commit
and roll back; children, supervisors, senders, Valkey and PostgreSQL are killed and come back. Each
send leaves a row (`Sent`) in its own transaction, each run another one (`Effect`), and a trigger of
the database notes each end that the ledger records (`End`): so the database itself says afterwards
what was promised, and what became of it.
"""
