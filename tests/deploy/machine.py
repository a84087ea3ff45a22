"""Hosts within this machine, for tests of what runs on several: each a set of name spaces with a first process of its own.

Everything a host was given, its processes, its mounts, its end of a cable, ends with its first process; and that one ends
when the test does, killed or not, because it reads from a pipe that the test holds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import daskglm

REPOSITORY = Path(__file__).parent.parent.parent
DEPLOY = REPOSITORY / "deploy"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LATE = "I(arr_delay > 15) ~ carrier + origin + C(month) + hour + log(distance) + temp + wind_speed + precip + visib"
_FIRST_PROCESS = "echo here; read -r _"


def need_root() -> None:
    if os.name != "posix" or not Path("/proc/self/ns/net").exists():
        pytest.skip("hosts are made of Linux name spaces")
    if os.geteuid():
        pytest.skip("name spaces, mounts and cables between them are made by root")
    probe = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"this machine gives no name spaces: {probe.stderr.strip()}")


def need_processor() -> None:
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    if not flags or not {"avx2", "fma"} <= set(flags.group(1).split()):
        pytest.skip("deploy/cpu.env is for x86-64 processors with AVX2 and FMA")


def need_commands(packages: Mapping[str, str]) -> None:
    """Install Debian's packages for the commands that are missing; skip where that is not possible."""
    missing = {package for command, package in packages.items() if not _which(command)}
    if not missing:
        return
    if not shutil.which("apt-get"):
        pytest.skip(f"there is no apt-get to install {', '.join(sorted(missing))}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *sorted(missing)]):
        run = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True, text=True)
    if run.returncode or not all(_which(command) for command in packages):
        pytest.skip(f"apt-get could not install {', '.join(sorted(missing))}: {run.stderr.strip()[-300:]}")


def _which(command: str) -> str | None:
    return shutil.which(command, path=f"{os.environ.get('PATH', '')}:{PATH}")


@contextmanager
def open_folder() -> Iterator[Path]:
    """A new folder that other users may enter, which those of pytest are not."""
    folder = Path(tempfile.mkdtemp(prefix="daskglm-deploy-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], object], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} seconds: {what}"
        time.sleep(0.05)


class Host:
    """A host with a name: `run` waits for a command on it, `start` does not."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir(parents=True)
        self._started: list[subprocess.Popen[bytes]] = []
        self._outer = subprocess.Popen(
            [
                "unshare", "--mount", "--propagation", "private", "--pid", "--net", "--uts", "--ipc", "--fork",
                "--kill-child", "--mount-proc", "bash", "-c", _FIRST_PROCESS,
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._outer.stdout is not None
        assert self._outer.stdout.readline() == b"here\n"
        self.first = children(self._outer.pid)[0]
        self.run("hostname", name)
        self.run("ip", "link", "set", "lo", "up")

    def command(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
        """A command as seen from outside; its environment holds nothing of the test's own."""
        settings = {"PATH": PATH, "LANG": "C.UTF-8", "HOME": str(self.folder), **(environment or {})}
        given = [f"{name}={value}" for name, value in settings.items()]
        spaces = ["--mount", "--pid", "--net", "--uts", "--ipc"]
        return ["nsenter", "--target", str(self.first), *spaces, "--wd=/", "env", "-i", *given, *command]

    def run(
        self, *command: str, environment: Mapping[str, str] | None = None, seconds: float = 300, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run to its end; check: it must be 0, and its output is shown where it is not."""
        done = subprocess.run(self.command(command, environment), capture_output=True, text=True, timeout=seconds)
        assert not check or done.returncode == 0, (
            f"{self.name}: {' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, *command: str, environment: Mapping[str, str] | None = None, log: str) -> subprocess.Popen[bytes]:
        """Start in the background, with both outputs in a file of that name in the host's folder."""
        with open(self.folder / log, "ab") as output:
            process = subprocess.Popen(
                self.command(command, environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(errors="replace") if path.exists() else ""

    def own(self, path: str) -> None:
        """From here on, what is written under a folder of this machine is this host's alone."""
        layers = [self.folder / "layers" / path.strip("/").replace("/", "-") / part for part in ("upper", "work")]
        for layer in layers:
            layer.mkdir(parents=True)
        layers[0].chmod(0o755)
        options = f"lowerdir={path},upperdir={layers[0]},workdir={layers[1]}"
        self.run("mount", "-t", "overlay", "overlay", "-o", options, path)

    def open_way(self, path: Path) -> None:
        """Let every user of this host, and of this host only, come as far as a file that lies in a private folder."""
        for folder in reversed(path.parents):
            if not folder.stat().st_mode & 0o001:
                self.own(str(folder))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        place = self.folder / "written"
        place.write_text(text)
        self.run("install", "-D", f"--mode={mode:o}", str(place), path)
        place.unlink()

    def end(self) -> None:
        assert self._outer.stdin is not None
        assert self._outer.stdout is not None
        self._outer.stdin.close()
        try:
            self._outer.wait(10)
        except subprocess.TimeoutExpired:
            self._outer.kill()
            self._outer.wait()
        self._outer.stdout.close()
        for process in self._started:
            process.wait(10)


def children(pid: int) -> list[int]:
    """The processes that a process started, by their numbers outside."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for task in tasks for word in task.read_text().split()]


def descendants(pid: int) -> list[int]:
    """A process's children and theirs, parents first."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


def many(lake: Path, copies: Path, number: int = 20) -> Path:
    """A lake of many copies of another, in no more room."""
    for copy in range(number):
        shutil.copytree(lake, copies / f"copy={copy}", copy_function=os.link)
    return copies


@contextmanager
def hosts(folder: Path, **addresses: str) -> Iterator[dict[str, Host]]:
    """Hosts by their names, with cables from each to a switch; each knows all others by name."""
    with ExitStack() as stack:
        made: dict[str, Host] = {}
        names = {name.replace("_", "-"): address for name, address in addresses.items()}
        for name in ("switch", *names):
            made[name] = Host(name, folder)
            stack.callback(made[name].end)
        switch = made.pop("switch")
        switch.run("ip", "link", "add", "bridge", "type", "bridge")
        switch.run("ip", "link", "set", "bridge", "up")
        known = "".join(f"{address.split('/')[0]} {name}\n" for name, address in names.items())
        for number, (name, host) in enumerate(made.items()):
            port = f"port{number}"
            cable = ["ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.first)]
            subprocess.run(["nsenter", "--target", str(switch.first), "--net", *cable], check=True)
            switch.run("ip", "link", "set", port, "master", "bridge", "up")
            host.run("ip", "address", "add", names[name], "dev", "eth0")
            host.run("ip", "link", "set", "eth0", "up")
            # as on any host, there is a way to the world; here it leads nowhere
            host.run("ip", "route", "add", "default", "dev", "eth0")
            host.own("/etc")
            host.write("/etc/hosts", f"127.0.0.1 localhost\n{known}")
        yield made


def blocks(readme: Path) -> list[str]:
    """The fenced sh blocks of a README."""
    return re.findall(r"^```sh\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)


def parse_environment(text: str) -> dict[str, str]:
    """NAME=VALUE lines, with quotes as shells and systemd read them."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found[name] = " ".join(shlex.split(value))
    return found


def passes_kept(checkpoint: Path) -> int:
    """How many totals of a fit are written down so far, the first of which only says what the rows are."""
    return len(list(checkpoint.glob("total-*.npz")))


def numbers(model: Path) -> dict[str, dict[str, str]]:
    """Every coefficient and standard error of a saved model, as hexadecimal: the same to the bit or not."""
    fit = daskglm.load(model)
    columns = {"estimate": fit.params, "error": fit.bse}
    return {name: {term: float(x).hex() for term, x in column.items()} for name, column in columns.items()}
