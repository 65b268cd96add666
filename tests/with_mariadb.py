"""`python -m tests.with_mariadb pytest …`: run a command with DATABASE_URL on a MariaDB server that
lives as long as the command. The server's programs are those of this machine: no wheel has them.
"""

import os
import subprocess
import sys

from tests.services import mariadb


def main(command: list[str]) -> int:
    if not command:
        raise SystemExit(__doc__)
    with mariadb() as url:
        try:
            return subprocess.run(
                command, env={**os.environ, "DATABASE_URL": url}, check=False
            ).returncode
        except KeyboardInterrupt:
            return 130  # the command got the same Ctrl-C and has said so


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
