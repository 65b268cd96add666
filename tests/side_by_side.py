"""`python -m tests.side_by_side first … -- second …`: run two commands at once.

What the second prints is seen as it comes, what the first prints after both have ended. The exit
status is the first one that isn't 0.
"""

import shlex
import subprocess
import sys
import tempfile


def main(args: list[str]) -> int:
    if "--" not in args:
        raise SystemExit(__doc__)
    middle = args.index("--")
    first, second = args[:middle], args[middle + 1 :]
    with tempfile.TemporaryFile() as printed:
        with (
            subprocess.Popen(first, stdout=printed, stderr=subprocess.STDOUT) as background,
            subprocess.Popen(second) as foreground,
        ):
            try:
                statuses = [foreground.wait(), background.wait()]
            except KeyboardInterrupt:
                statuses = [130]  # both got the same Ctrl-C; leaving the block waits for their ends
        printed.seek(0)
        sys.stdout.write(f"\n==> {shlex.join(first)}\n{printed.read().decode(errors='replace')}")
    return next((abs(status) for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
