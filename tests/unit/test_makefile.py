"""How the Makefile sets up the virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

#: An interpreter, as far as the Makefile needs one. What it makes of it is noted in a file.
PYTHON = """\
#!/bin/sh
case "$1 $2" in
"-c "*version_info*) ;;
"-c "*) echo {name} ;;
"--version "*) echo Python {name} ;;
"-m venv") echo "{name} makes it" >> {log}; rm -rf "$4"; mkdir -p "$4/bin"
    cp "$0" "$4/bin/python"; cp "$0" "$4/bin/pip" ;;
"-m pip") echo "{name} installs" >> {log}; [ ! -e {log}.broken ] ;;
esac
"""


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_a_set_up_that_was_cut_off_uses_the_interpreter_of_the_next(tmp_path: Path) -> None:
    log, venv = tmp_path / "log", tmp_path / "venv"

    def make(name: str) -> list[str]:
        """Set up with this interpreter; gives what it did."""
        python = tmp_path / name
        python.write_text(PYTHON.format(name=name, log=log))
        python.chmod(0o755)
        log.write_text("")
        command = ["make", f"VENV={venv}", f"PYTHON={python}", f"{venv}/.installed"]
        environment = {name: text for name, text in os.environ.items() if name != "MAKEFLAGS"}
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
        return log.read_text().splitlines()

    broken = Path(f"{log}.broken")
    broken.touch()
    assert make("one") == ["one makes it", "one installs"]
    assert make("one") == ["one installs"], "it goes on where it was cut off"
    assert make("two") == ["two makes it", "two installs"]
    broken.unlink()
    assert make("two") == ["two installs"]
    assert make("one") == [], "it is set up"
    # The requirements have changed since: the environment stays as it was asked for.
    os.utime(venv / ".installed", (0, 0))
    assert make("one") == ["two installs"]
