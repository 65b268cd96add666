"""`python -m tests.with_postgres pytest …`: run a command with DATABASE_URL on a PostgreSQL server
that lives as long as the command.
"""

import os
import subprocess
import sys

from tests.services import postgres


def main(command: list[str]) -> int:
    if not command:
        raise SystemExit(__doc__)
    with postgres() as url:
        try:
            return subprocess.run(
                command, env={**os.environ, "DATABASE_URL": url}, check=False
            ).returncode
        except KeyboardInterrupt:
            return 130  # the command got the same Ctrl-C and has said so


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
