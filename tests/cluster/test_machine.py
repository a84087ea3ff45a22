"""What the process may use, against control groups and mount tables written for the purpose."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from daskglm.cluster import machine


def groups(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    monkeypatch.setattr(machine, "_group_folders", lambda controller: list(folders))


@pytest.mark.parametrize(
    "text, allowed", [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("900000 100000", 8), ("junk", 8)]
)
def test_processors_are_the_lesser_of_affinity_and_quota(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, allowed: int
) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    groups(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert machine.processors() == allowed


def test_the_quota_of_the_first_version_of_control_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.cfs_quota_us").write_text("300000")
    (tmp_path / "cpu.cfs_period_us").write_text("100000")
    groups(monkeypatch, tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
    assert machine.processors() == 3
    (tmp_path / "cpu.cfs_quota_us").write_text("-1")
    assert machine.processors() == 16


def test_without_any_group_it_is_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    groups(monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert machine.processors() == 1


def test_memory_is_the_least_limit_of_all_groups_above(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    inner, outer, none = tmp_path / "inner", tmp_path / "outer", tmp_path / "none"
    for folder in (inner, outer, none):
        folder.mkdir()
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.high").write_text("70000000\n")
    (outer / "memory.max").write_text("50000000\n")
    groups(monkeypatch, inner, outer, none)
    assert machine.memory_limit() == 50_000_000
    (outer / "memory.max").write_text("90000000\n")
    assert machine.memory_limit() == 70_000_000


def test_an_unlimited_group_leaves_the_memory_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text(str((1 << 63) - 4096))
    groups(monkeypatch, tmp_path)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory_limit() == installed


def mounted(monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    read = Path.read_text

    def instead(path: Path, *args: object, **kwargs: object) -> str:
        return table if str(path) == "/proc/mounts" else read(path)

    monkeypatch.setattr(Path, "read_text", instead)
    monkeypatch.setattr(os.path, "realpath", lambda path: path)


TABLE = """\
disk / ext4 rw 0 0
none /run tmpfs rw 0 0
disk /run/media ext4 rw 0 0
none /running ramfs rw 0 0
"""


@pytest.mark.parametrize(
    "path, memory",
    [
        ("/", False),
        ("/home/x", False),
        ("/run", True),
        ("/run/user/1", True),
        ("/run/media", False),
        ("/run/media/disk", False),
        ("/runner", False),
        ("/running/x", True),
    ],
)
def test_the_longest_mount_point_decides_what_a_folder_lies_on(
    monkeypatch: pytest.MonkeyPatch, path: str, memory: bool
) -> None:
    mounted(monkeypatch, TABLE)
    assert machine.on_memory(path) is memory


def test_the_groups_of_this_process_are_read_from_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "5:cpu,cpuacct:/a/b\n4:memory:/m\n0::/u\n"
    monkeypatch.setattr(Path, "read_text", lambda path, *args, **kwargs: lines)
    cpu = [str(folder) for folder in machine._group_folders("cpu")]
    assert cpu[:3] == ["/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/cpu,cpuacct/a", "/sys/fs/cgroup/cpu,cpuacct"]
    assert "/sys/fs/cgroup/cpu/a/b" in cpu
    assert cpu[-4:] == ["/sys/fs/cgroup/u", "/sys/fs/cgroup", "/sys/fs/cgroup/unified/u", "/sys/fs/cgroup/unified"]
    assert not any("/m" in folder for folder in cpu)
