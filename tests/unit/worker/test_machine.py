"""What the machine gives a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from jobs.worker import machine


def mount(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        pytest.param("", {}, 8, id="another system"),
        pytest.param("0::/\n", {}, 8, id="version 2, no limit"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "max 100000\n"}, 8, id="version 2, max"),
        pytest.param("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n"}, 2, id="version 2"),
        pytest.param("0::/a\n", {"a/cpu.max": "250000 100000\n"}, 3, id="two and a half"),
        pytest.param("0::/a\n", {"a/cpu.max": "5000 100000\n"}, 1, id="a twentieth"),
        pytest.param("0::/a\n", {"a/cpu.max": "9900000 100000\n"}, 8, id="more than there are"),
        pytest.param(
            "0::/a/b\n",
            {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "150000 50000\n"},
            3,
            id="version 2, the group above",
        ),
        pytest.param(
            "0::/docker/not-there\n", {"cpu.max": "100000 100000\n"}, 1, id="version 2, container"
        ),
        pytest.param(
            "5:memory:/a\n4:cpu,cpuacct:/a\n0::/\n",
            {"cpu/a/cpu.cfs_quota_us": "300000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            3,
            id="version 1",
        ),
        pytest.param(
            "4:cpuacct,cpu:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            8,
            id="version 1, no limit",
        ),
        pytest.param(
            "4:cpuset:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "100000\n", "cpu/a/cpu.cfs_period_us": "100000\n"},
            8,
            id="another tree of version 1",
        ),
        pytest.param("0::/a\n", {"a/cpu.max": "?\n"}, 8, id="unreadable"),
    ],
)
def test_cores_obey_control_groups(
    own: str,
    files: dict[str, str],
    expected: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_groups = tmp_path / "own"
    if own:
        own_groups.write_text(own)
    mount(tmp_path / "groups", files)
    monkeypatch.setattr(machine, "_OWN_GROUPS", own_groups)
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert machine.cores() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to cores")
def test_cores_obey_the_affinity() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert machine.cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_memory() -> None:
    before = machine.own_memory()
    held = b"x" * 64 * 1024 * 1024
    assert machine.own_memory() >= before + len(held) // 2 > 0
    assert machine.memory_of(2**22 + 1) == 0
