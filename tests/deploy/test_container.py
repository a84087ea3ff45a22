"""deploy/container: the steps of the Containerfile in a clean root, and what it makes under a root that is read-only.

No engine of containers is needed: a base is made by debootstrap, the steps are carried out in it one by one, and a container
is a host of name spaces whose root is that folder, mounted read-only.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.machine import (
    DEPLOY,
    LATE,
    PATH,
    REPOSITORY,
    Host,
    hosts,
    need_commands,
    need_processor,
    need_root,
    numbers,
    open_folder,
    parse_environment,
    until,
)

pytestmark = pytest.mark.deploy

ADDRESSES = {"scheduler": "10.79.0.1/24", "worker": "10.79.0.2/24", "client": "10.79.0.3/24"}
# What the test asks of the image beside its defaults
ARGUMENTS = {"EXTRAS": "[examples]"}


def steps(text: str) -> list[tuple[str, str]]:
    """(instruction, its text) of a Containerfile, with lines joined and comments gone."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


@dataclass
class Image:
    """A root, and what the steps said about how commands run in it."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    user: str = "0:0"
    folder: str = "/"
    command: list[str] = field(default_factory=list)

    def build(self, host: Host, context: Path, arguments: dict[str, str]) -> None:
        """Every instruction has its meaning here; one that has none is an error."""
        given: dict[str, str] = {}
        for instruction, text in steps((DEPLOY / "container/Containerfile").read_text()):
            match instruction:
                case "FROM":
                    assert text == "python:3.11-slim"
                case "ARG":
                    name, _, default = text.partition("=")
                    given[name] = arguments.get(name, default.strip('"'))
                case "ENV":
                    self.environment.update(word.split("=", 1) for word in shlex.split(text))
                case "COPY":
                    pattern, target = text.split()
                    (self.root / target.strip("/")).mkdir(parents=True, exist_ok=True)
                    for path in context.glob(pattern):
                        shutil.copy(path, self.root / target.strip("/"))
                case "RUN":
                    host.run(*self.inside("/bin/sh", "-c", text, environment=given))
                case "USER":
                    self.user = text
                case "WORKDIR":
                    self.folder = text
                case "CMD":
                    self.command = json.loads(text)
                case _:
                    pytest.fail(f"{instruction} {text}: not an instruction that this test knows")

    def inside(self, *command: str, environment: dict[str, str] | None = None) -> list[str]:
        settings = [f"{name}={value}" for name, value in {**self.environment, **(environment or {})}.items()]
        return [
            "chroot",
            f"--userspec={self.user}",
            str(self.root),
            "env",
            "-i",
            f"--chdir={self.folder}",
            *settings,
            *command,
        ]


@dataclass
class Container:
    """An image on a host: nothing of its root can be written but /tmp and what is mounted."""

    host: Host
    image: Image

    def mount(self, volumes: dict[Path, str]) -> None:
        root = self.image.root
        for inside in (*volumes.values(), "/tmp", "/proc", "/dev", "/sys"):
            (root / inside.strip("/")).mkdir(parents=True, exist_ok=True)
        self.host.run("mount", "--bind", str(root), str(root))
        self.host.run("mount", "-o", "remount,bind,ro", str(root))
        self.host.run("mount", "-t", "proc", "proc", f"{root}/proc")
        self.host.run("mount", "--rbind", "/dev", f"{root}/dev")
        self.host.run("mount", "--rbind", "-o", "ro", "/sys", f"{root}/sys")
        self.host.run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp")
        for name in ("hosts", "resolv.conf"):
            (root / "etc" / name).touch()
        self.host.run("mount", "--bind", "/etc/hosts", f"{root}/etc/hosts")
        for outside, inside in volumes.items():
            self.host.run("mount", "--bind", str(outside), f"{root}{inside}")

    def run(
        self, *command: str, check: bool = True, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.host.run(*self.image.inside(*command, environment=environment), check=check)

    def start(self, *command: str, log: str) -> None:
        self.host.start(*self.image.inside(*command), log=log)


MIRROR = os.environ.get("DEBIAN_MIRROR", "http://deb.debian.org/debian")
# Commands of containers in the README: the rest of a line after the image's name
CONTAINER = re.compile(r"^run .*?\bdaskglm ((?:dask|daskglm) .*)$", re.MULTILINE)


@contextmanager
def base(folder: Path) -> Iterator[Path]:
    """A root like that of python:3.11-slim: Debian, with Python and pip in /usr/local and nothing else in it."""
    root = folder / "root"
    alone = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
    packages = "--include=python3,python3-venv,ca-certificates"
    made = subprocess.run(
        [*alone, "debootstrap", "--variant=minbase", packages, "bookworm", str(root), MIRROR],
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"no clean root could be made: {(made.stdout + made.stderr).strip()[-500:]}")
    subprocess.run(["chroot", str(root), "python3", "-m", "venv", "/usr/local"], check=True)
    yield root


def wheels(folder: Path) -> Path:
    """The wheel under test in context/dist, and all that it needs in a folder, so that the build needs no network."""
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "context/dist"), str(REPOSITORY)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (folder / "context/dist").glob("*.whl")
    needed = f"{wheel}{ARGUMENTS['EXTRAS']}"
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "-w", str(folder / "wheels"), needed], check=True)
    return folder / "wheels"


@dataclass
class Made:
    """The image, running in one container on each host."""

    folder: Path
    image: Image
    containers: dict[str, Container]


@pytest.fixture(scope="module")
def made() -> Iterator[Made]:
    need_root()
    need_processor()
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the wheels are gathered by this Python, and the image has 3.11")
    need_commands({"debootstrap": "debootstrap", "ip": "iproute2", "openssl": "openssl"})
    with open_folder() as folder, base(folder) as root:
        shutil.copytree(wheels(folder), root / "wheels")
        image = Image(root)
        with hosts(folder / "building", builder="10.79.1.1/24") as alone:
            alone["builder"].run("mount", "--rbind", "/dev", f"{root}/dev")
            alone["builder"].run("mount", "-t", "proc", "proc", f"{root}/proc")
            image.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
            image.build(alone["builder"], folder / "context", ARGUMENTS)
            del image.environment["PIP_NO_INDEX"], image.environment["PIP_FIND_LINKS"]
        shutil.rmtree(root / "wheels")
        with hosts(folder / "hosts", **ADDRESSES) as machines:
            containers = {name: Container(host, image) for name, host in machines.items()}
            (folder / "work").mkdir()
            shutil.chown(folder / "work", 10001, 10001)
            for name, container in containers.items():
                settings = certified(folder, name)
                container.mount({settings: "/etc/daskglm", folder / "dask": "/etc/dask", folder / "work": "/work"})
            try:
                yield Made(folder, image, containers)
            finally:
                for name, host in machines.items():
                    print(f"--- {name}\n{host.log('dask.log')}")


def certified(folder: Path, name: str) -> Path:
    """The folders that the README mounts as /etc/daskglm and /etc/dask, made as deploy/hosts makes them."""
    authority, certificates = folder / "authority", str(DEPLOY / "hosts/certificates")
    if not authority.exists():
        subprocess.run([certificates, "ca", str(authority)], check=True, capture_output=True)
        (folder / "dask").mkdir()
        shutil.copy(DEPLOY / "hosts/dask.yaml", folder / "dask/daskglm.yaml")
    subprocess.run([certificates, "host", str(authority), name], check=True, capture_output=True)
    settings = folder / "settings" / name
    settings.mkdir(parents=True)
    for source, target in (("ca.pem", "ca.pem"), (f"{name}.pem", "host.pem"), (f"{name}.key", "host.key")):
        shutil.copy(authority / source, settings / target)
    shutil.chown(settings / "host.key", 10001, 10001)
    return settings


def test_the_image_pins_what_the_others_pin() -> None:
    image: dict[str, str] = {}
    for instruction, text in steps((DEPLOY / "container/Containerfile").read_text()):
        if instruction == "ENV":
            image.update(word.split("=", 1) for word in shlex.split(text))
    pins = parse_environment((DEPLOY / "cpu.env").read_text())
    assert {name: image.get(name) for name in pins} == pins


COUNT = """
import importlib, json, os, pkgutil
from daskglm import kernels as room
from daskglm.cluster.preflight import features
rooms = [importlib.import_module(each.name) for each in pkgutil.iter_modules(room.__path__, "daskglm.kernels.")]
found = {id(each): each for each in (getattr(room, name) for room in rooms for name in dir(room))
         if hasattr(each, "stats") and not each._can_compile}.values()
print(json.dumps({
    "kernels": len(found),
    "hits": sum(sum(each.stats.cache_hits.values()) for each in found),
    "misses": sum(sum(each.stats.cache_misses.values()) for each in found),
    "user": os.getuid(),
    "features": features(),
}))
"""


def test_kernels_are_in_the_image_and_it_stays_as_it_is(made: Made) -> None:
    client = made.containers["client"]
    assert client.run("touch", "/opt/daskglm/cache/new", check=False).returncode
    assert client.run("touch", "/tmp/new", check=False).returncode == 0
    seen = json.loads(client.run("python", "-c", COUNT).stdout)
    assert seen["user"] == 10001
    assert seen["kernels"] >= 4
    assert (seen["hits"], seen["misses"]) == (seen["kernels"], 0)


def test_without_a_command_the_image_shows_its_help(made: Made) -> None:
    assert "fit" in made.containers["client"].run(*made.image.command).stdout


def test_example_and_fit_under_a_read_only_root(made: Made) -> None:
    client = made.containers["client"]
    client.run("daskglm", "example", "flights", "/work/flights")
    client.run("daskglm", "fit", LATE, "/work/flights", "--family", "binomial", "--out", "/work/at-home")
    assert numbers(made.folder / "work/at-home")


@pytest.mark.parametrize("processor", ["Haswell", "EPYC-Rome"])
def test_another_processor_finds_the_kernels_and_gives_the_same_bits(made: Made, processor: str) -> None:
    """The whole fit on emulated processors of other makes and years than this machine's."""
    need_commands({"qemu-x86_64-static": "qemu-user-static"})
    emulator = made.folder / "work/qemu"
    shutil.copy(shutil.which("qemu-x86_64-static") or "", emulator)
    emulated = ["/work/qemu", "-cpu", processor, "/usr/local/bin/python"]
    client = made.containers["client"]
    seen = json.loads(client.run(*emulated, "-c", COUNT).stdout)
    assert (seen["hits"], seen["misses"]) == (seen["kernels"], 0)
    # what the fit compares before it warns of processors that differ
    assert seen["features"] == json.loads(client.run("python", "-c", COUNT).stdout)["features"]
    out = f"/work/on-{processor}"
    client.run(*emulated, "-m", "daskglm", "fit", LATE, "/work/flights", "--family", "binomial", "--out", out)
    assert numbers(made.folder / out.strip("/")) == numbers(made.folder / "work/at-home")


def test_scheduler_worker_and_client_are_one_image(made: Made) -> None:
    """The README's commands, with TLS; the numbers are those of the embedded engine to the bit."""
    work = made.folder / "work"
    text = f'formula = "{LATE}"\ndata = "/work/flights"\nfamily = "binomial"\nout = "/work/by-cluster"\n'
    (work / "job.toml").write_text(text)
    readme = re.sub(r"\\\n\s*", "", (DEPLOY / "container/README.md").read_text())
    scheduler, worker, fit = (shlex.split(command) for command in CONTAINER.findall(readme))
    made.containers["scheduler"].start(*scheduler, log="dask.log")
    made.containers["worker"].start(*worker, log="dask.log")
    until(lambda: "Registered to" in made.containers["worker"].host.log("dask.log"), 60, "the worker is registered")
    made.containers["client"].run(*fit)
    assert numbers(work / "by-cluster") == numbers(work / "at-home")
