"""The hosts of these tests leave nothing behind, whatever ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.machine import REPOSITORY, children, hosts, need_commands, need_root, until

pytestmark = pytest.mark.deploy

# Two hosts, each with a process of its own and a folder of its own on top of /etc
SCRIPT = """
import os, signal, sys
from pathlib import Path
from tests.deploy.machine import children, hosts
with hosts(Path(sys.argv[1]), one="10.76.0.1/24", two="10.76.0.2/24") as made:
    pids = [host.first for host in made.values()]
    for host in made.values():
        host.write("/etc/daskglm-test", "")
        entered = host.start("sleep", "1000", log="sleep.log").pid
        while not children(entered):
            pass
        pids += [entered, *children(entered)]
    print(*pids, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def able() -> None:
    need_root()
    need_commands({"ip": "iproute2"})


def traces(folder: Path) -> list[str]:
    """Mounts, cables and files of hosts that this machine itself would see."""
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if str(folder) in line]
    links = [name for name in os.listdir("/sys/class/net") if name.startswith(("port", "bridge", "veth"))]
    return [*mounts, *links, *(["/etc/daskglm-test"] if Path("/etc/daskglm-test").exists() else [])]


def test_hosts_see_each_other_and_nothing_else(tmp_path: Path) -> None:
    before = traces(tmp_path)
    with hosts(tmp_path, one="10.76.0.1/24", two="10.76.0.2/24") as made:
        assert made["one"].run("hostname").stdout == "one\n"
        assert made["one"].run("getent", "hosts", "two").stdout.split() == ["10.76.0.2", "two"]
        listening = made["two"].start(sys.executable, "-m", "http.server", "8000", log="http.log")
        fetch = "import urllib.request as r; print(r.urlopen('http://two:8000/', timeout=5).status)"
        until(
            lambda: made["one"].run(sys.executable, "-c", fetch, check=False).stdout == "200\n", 20, "two answers one"
        )
        outside = subprocess.run([sys.executable, "-c", fetch.replace("two", "10.76.0.2")], capture_output=True)
        assert outside.returncode
        (server,) = children(listening.pid)
        made["one"].write("/etc/daskglm-test", "")
        assert traces(tmp_path) == before
    assert not Path(f"/proc/{server}").exists()
    assert traces(tmp_path) == before


def test_hosts_end_with_a_test_that_is_killed(tmp_path: Path) -> None:
    before = traces(tmp_path)
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    pids = killed.stdout.split()
    assert len(pids) == 6
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 10, "their processes are gone")
    assert traces(tmp_path) == before
