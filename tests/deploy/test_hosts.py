"""deploy/hosts: the units' own commands on hosts made of name spaces, each with a certificate of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.deploy.machine import (
    DEPLOY,
    LATE,
    Host,
    blocks,
    descendants,
    hosts,
    many,
    need_commands,
    need_processor,
    need_root,
    numbers,
    open_folder,
    parse_environment,
    passes_kept,
    until,
)

pytestmark = pytest.mark.deploy

ADDRESSES = {
    "scheduler": "10.77.0.1/24",
    "worker_1": "10.77.0.2/24",
    "worker_2": "10.77.0.3/24",
    "client": "10.77.0.4/24",
}
SCHEDULER = "tls://scheduler:8786"
MINE = (
    "--tls-ca-file",
    "/etc/daskglm/ca.pem",
    "--tls-cert",
    "/etc/daskglm/host.pem",
    "--tls-key",
    "/etc/daskglm/host.key",
)
# Within these seconds whoever is refused must have heard so: Dask tries for 30 before it says that nobody answers.
HEARD = 60
# A host where nothing was installed
UNCONFIGURED = {"DASK_ROOT_CONFIG": "/nowhere"}
DASKGLM = "/opt/daskglm/bin/daskglm"


@dataclass
class Unit:
    """What a unit file says, as far as systemd would act on it here."""

    name: str
    settings: dict[str, list[str]]

    @classmethod
    def read(cls, name: str) -> Unit:
        settings: dict[str, list[str]] = {}
        for line in (DEPLOY / "hosts" / f"{name}.service").read_text().splitlines():
            if line and line[0] not in "#[":
                key, _, value = line.partition("=")
                settings.setdefault(key, []).append(value)
        return cls(name, settings)

    def one(self, key: str) -> str:
        (value,) = self.settings[key]
        return value


@dataclass
class Service:
    """A unit on a host, started and started again as its Restart= says."""

    host: Host
    unit: Unit
    process: subprocess.Popen[bytes] = field(init=False)
    statuses: list[int] = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        user = self.unit.one("User")
        for key, root in (("StateDirectory", "/var/lib"), ("CacheDirectory", "/var/cache")):
            self.host.own(root)
            self.host.run("install", "-d", f"--owner={user}", f"{root}/{self.unit.one(key)}")
        self.start()

    def start(self) -> None:
        environment = {"HOME": "/var/lib/daskglm"}
        for setting in self.unit.settings.get("Environment", []):
            environment.update(parse_environment(setting))
        for path in self.unit.settings["EnvironmentFile"]:
            environment.update(parse_environment(self.host.run("cat", path).stdout))
        words = shlex.split(self.unit.one("ExecStart"))
        command = [re.sub(r"\$\{(\w+)\}", lambda match: environment[match.group(1)], word) for word in words]
        user = self.unit.one("User")
        privileges = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
        command = ["env", f"--chdir={self.unit.one('WorkingDirectory')}", *privileges, *command]
        self.process = self.host.start(*command, environment=environment, log=f"{self.unit.name}.log")

    def supervise(self) -> None:
        """One look, as systemd has of its processes all the time."""
        status = self.process.poll()
        if status is None:
            return
        self.statuses.append(status)
        restart = self.unit.one("Restart")
        if restart == "always" or (restart == "on-failure" and status != 0):
            self.start()

    @property
    def log(self) -> str:
        return self.host.log(f"{self.unit.name}.log")


@dataclass
class Cluster:
    hosts: dict[str, Host]
    folder: Path
    lake: Path
    scheduler: Service
    workers: list[Service]

    def python(self, script: str, *arguments: str) -> str:
        """The output of a script on the client, with the settings of /etc/dask."""
        environment = pins()
        return (
            self.hosts["client"]
            .run("/opt/daskglm/bin/python", "-c", script, *arguments, environment=environment)
            .stdout
        )

    def command(self, *options: str, lake: Path | None = None, out: Path | None = None) -> list[str]:
        saved = ["--out", str(out)] if out else []
        return [DASKGLM, "fit", LATE, str(lake or self.lake), "--family", "binomial", "--json", *saved, *options]

    def fit(
        self,
        *options: str,
        lake: Path | None = None,
        out: Path | None = None,
        configured: bool = True,
        seconds: float = 300,
    ) -> subprocess.CompletedProcess[str]:
        """configured: with the settings of /etc/dask."""
        command = self.command(*options, lake=lake, out=out)
        environment = pins() if configured else {**pins(), **UNCONFIGURED}
        return self.hosts["client"].run(*command, environment=environment, seconds=seconds, check=False)


def pins() -> dict[str, str]:
    return parse_environment((DEPLOY / "cpu.env").read_text())


def install(host: Host, folder: Path, block: str) -> None:
    """The README's block for every host, with this Python's packages in /opt/daskglm."""
    host.own("/opt")
    host.run("ln", "-s", sys.prefix, "/opt/daskglm")
    host.open_way(Path(sys.executable).resolve())
    host.run("sh", "-euc", f"cd {folder}/deploy/hosts; {block}", environment={"NAME": host.name})


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    need_root()
    need_processor()
    need_commands({"ip": "iproute2", "openssl": "openssl", "setpriv": "util-linux", "useradd": "passwd"})
    with open_folder() as folder:
        authority, _, settings, _ = blocks(DEPLOY / "hosts" / "README.md")
        shutil.copytree(DEPLOY, folder / "deploy")
        subprocess.run(["sh", "-euc", authority], cwd=folder / "deploy/hosts", check=True, capture_output=True)
        lake = folder / "flights"
        subprocess.run([sys.executable, "-m", "daskglm", "example", "flights", str(lake)], check=True)
        with hosts(folder / "hosts", **ADDRESSES) as made:
            for host in made.values():
                install(host, folder, settings)
            units = Unit.read("daskglm-scheduler"), Unit.read("daskglm-worker")
            scheduler = Service(made["scheduler"], units[0])
            workers = [Service(made[name], units[1]) for name in ("worker-1", "worker-2")]
            cluster = Cluster(made, folder, lake, scheduler, workers)
            try:
                wait_for_workers(cluster, 2)
                yield cluster
            finally:
                for service in (scheduler, *workers):
                    print(f"--- {service.host.name}\n{service.log}")


WAIT = """
import sys
from distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    client.wait_for_workers(int(sys.argv[2]), timeout=90)
"""


def wait_for_workers(cluster: Cluster, count: int) -> None:
    cluster.python(WAIT, SCHEDULER, str(count))


def test_the_units_are_good(cluster: Cluster) -> None:
    """systemd's own reading of both units, where every file they name is there."""
    need_commands({"systemd-analyze": "systemd"})
    for unit in ("daskglm-scheduler", "daskglm-worker"):
        verified = cluster.hosts["worker-1"].run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}.service")
        assert not verified.stderr, verified.stderr
        assert not verified.stdout, verified.stdout


@pytest.mark.parametrize("name", ["daskglm-scheduler", "daskglm-worker"])
def test_what_a_unit_must_say(name: str) -> None:
    unit = Unit.read(name)
    assert unit.one("Restart") == "always"
    assert "/etc/daskglm/cpu.env" in unit.settings["EnvironmentFile"]
    assert "--no-nanny" not in unit.one("ExecStart")
    limit = re.search(r"--memory-limit (0\.\d+)", unit.one("ExecStart"))
    share = int(unit.one("MemoryMax").removesuffix("%")) / 100
    assert share < 1
    assert name.endswith("scheduler") or (limit and float(limit.group(1)) < share)


INSIDE = """
import json, sys
from distributed import Client

def arithmetic():
    import getpass, numba, numpy, scipy.linalg, threadpoolctl
    from numba.core.registry import cpu_target
    from numpy._core import _multiarray_umath as core
    return {
        "blas": sorted({(pool["architecture"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()
                        if pool["user_api"] == "blas"}),
        "above": [name for name in ("X86_V4", "AVX512F", "AVX512_SKX", "AVX512_ICL", "AVX512_SPR")
                  if name in core.__cpu_dispatch__ and core.__cpu_features__[name]],
        "numba": cpu_target.target_context.codegen().magic_tuple()[1:],
        "user": getpass.getuser(),
    }

with Client(sys.argv[1], timeout=60) as client:
    print(json.dumps({
        "workers": sorted(client.run(arithmetic).values(), key=str),
        "addresses": sorted(client.scheduler_info()["workers"]),
        "scheduler": client.run_on_scheduler(arithmetic),
        "client": arithmetic(),
        "ttl": client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.worker_ttl),
    }))
"""


def test_every_process_computes_alike_and_speaks_tls(cluster: Cluster) -> None:
    seen = json.loads(cluster.python(INSIDE, SCHEDULER))
    alike = {"blas": [["Haswell", 1]], "above": [], "numba": ["x86-64-v3", "+avx2,+fma"]}
    assert seen["workers"] == [{**alike, "user": "daskglm"}] * 2
    assert seen["scheduler"] == {**alike, "user": "daskglm"}
    assert seen["client"] == {**alike, "user": "root"}
    assert seen["addresses"] == ["tls://10.77.0.2:8788", "tls://10.77.0.3:8788"]
    assert seen["ttl"] == 60


def test_nothing_but_tls_is_open_to_the_network(cluster: Cluster) -> None:
    for service, ports in ((cluster.scheduler, {"8786"}), *((each, {"8788", "8789"}) for each in cluster.workers)):
        lines = service.host.run("ss", "--listening", "--tcp", "--numeric", "--no-header").stdout.splitlines()
        local = [line.split()[3].rsplit(":", 1) for line in lines]
        assert {port for address, port in local if address not in ("127.0.0.1", "[::1]")} == ports


@pytest.fixture(scope="module")
def strangers(cluster: Cluster) -> str:
    """The folder of certificates by an authority that is not the cluster's."""
    folder = str(cluster.folder / "strangers")
    for words in (["ca", folder], ["host", folder, "client"]):
        subprocess.run([str(DEPLOY / "hosts/certificates"), *words], check=True, capture_output=True)
    return folder


# (address, certificate authority, certificate and its key) of who must not come in. The authority's certificate is no
# secret: a stranger may hold that too.
REFUSED = {
    "plain": ("tcp://scheduler:8786", "", ""),
    "another authority": (SCHEDULER, "{strangers}/ca.pem", "{strangers}/client"),
    "another certificate": (SCHEDULER, "/etc/daskglm/ca.pem", "{strangers}/client"),
}


def refused(kind: str, strangers: str) -> tuple[str, list[str]]:
    """(address, options) of one who must not come in."""
    address, authority, mine = (text.format(strangers=strangers) for text in REFUSED[kind])
    options = (
        [] if kind == "plain" else ["--tls-ca-file", authority, "--tls-cert", f"{mine}.pem", "--tls-key", f"{mine}.key"]
    )
    return address, options


CONNECT = """
import sys
from distributed import Client
from distributed.security import Security
address, *options = sys.argv[1:]
given = dict(zip(("tls_ca_file", "tls_client_cert", "tls_client_key"), options[1::2]))
Client(address, timeout=10, security=Security(require_encryption=True, **given) if given else None)
"""


@pytest.mark.parametrize("kind", REFUSED)
def test_strangers_are_refused_by_the_scheduler_itself(cluster: Cluster, strangers: str, kind: str) -> None:
    """Whatever our command says to them: these come with Dask alone, from a host where it has no settings."""
    address, options = refused(kind, strangers)
    client = cluster.hosts["client"]
    done = client.run(
        "/opt/daskglm/bin/python", "-c", CONNECT, address, *options, environment=UNCONFIGURED, check=False
    )
    assert done.returncode == 1
    assert re.search(r"CommClosedError|OSError: Timed out", done.stderr.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("kind", REFUSED)
def test_a_strange_worker_is_refused(cluster: Cluster, strangers: str, kind: str) -> None:
    """The unit's command, but for its certificate, its folder, its ports and the time after which it gives up."""
    address, options = refused(kind, strangers)
    command = Unit.read("daskglm-worker").one("ExecStart").replace("${DASKGLM_SCHEDULER}", address)
    command = re.sub(r"--(worker|nanny)-port \S+", "", command).replace("--death-timeout 60", "--death-timeout 3")
    command = command.replace("/var/lib/daskglm", strangers)
    done = cluster.hosts["client"].run(
        *shlex.split(command), *options, environment=UNCONFIGURED, seconds=HEARD, check=False
    )
    assert done.returncode != 0
    assert "Registered to" not in done.stderr
    assert len(json.loads(cluster.python(INSIDE, SCHEDULER))["addresses"]) == 2


def kill(cluster: Cluster, service: Service) -> None:
    """As a host that goes dark: the process and all that it started."""
    for each in (cluster.scheduler, *cluster.workers):
        each.ended = len(each.statuses)
    for pid in reversed(descendants(service.process.pid)):
        os.kill(pid, signal.SIGKILL)


def supervised(cluster: Cluster, services: list[Service]) -> bool:
    """Whether each of these has ended since the last kill, and run again as its unit says."""
    for service in (cluster.scheduler, *cluster.workers):
        service.supervise()
    return all(len(service.statuses) > service.ended for service in services)


def test_workers_come_back_to_a_new_scheduler(cluster: Cluster) -> None:
    """A worker without its scheduler ends with status 0, which Restart=on-failure would take for the end of the work."""
    kill(cluster, cluster.scheduler)
    until(lambda: supervised(cluster, [cluster.scheduler, *cluster.workers]), 90, "all three have ended once")
    assert cluster.scheduler.statuses[0] != 0
    assert [worker.statuses[0] for worker in cluster.workers] == [0, 0]
    wait_for_workers(cluster, 2)


COUNTED = """
import sys
from distributed import Client
with Client(sys.argv[1], timeout=60) as client:
    print(client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.transition_counter))
"""


def work_done(cluster: Cluster) -> int:
    """How many steps all tasks of this scheduler have taken so far."""
    return int(cluster.python(COUNTED, SCHEDULER))


def test_a_fit_over_tls_is_the_fit_at_home(cluster: Cluster) -> None:
    """The README's command; two hosts with a certificate each did the work, and it is the embedded engine's to the bit."""
    before = work_done(cluster)
    done = cluster.fit("--scheduler", SCHEDULER, *MINE, out=cluster.folder / "by-cluster")
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["converged"]
    assert outcome["rows_read"] == 336776
    assert work_done(cluster) > before
    assert cluster.fit(out=cluster.folder / "at-home").returncode == 0
    assert numbers(cluster.folder / "by-cluster") == numbers(cluster.folder / "at-home")


@pytest.mark.parametrize("kind", REFUSED)
def test_the_command_says_in_a_sentence_that_it_is_refused(cluster: Cluster, strangers: str, kind: str) -> None:
    address, options = refused(kind, strangers)
    done = cluster.fit("--scheduler", address, *options, configured=False, seconds=HEARD)
    assert done.returncode == 5, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the scheduler at {address} cannot be reached: ")


def test_the_settings_alone_name_the_certificates(cluster: Cluster) -> None:
    """Where /etc/dask is as the README says, the three flags say what is known; and an address without TLS is refused."""
    assert cluster.fit("--scheduler", SCHEDULER).returncode == 0
    plain = cluster.fit("--scheduler", SCHEDULER.replace("tls", "tcp"))
    assert plain.returncode == 2
    (line,) = plain.stderr.splitlines()
    assert "demands encryption" in line


@pytest.fixture(scope="module")
def long_fit(cluster: Cluster) -> tuple[Path, dict[str, dict[str, str]]]:
    """(a lake of many copies of the flights, whose passes take long enough for accidents, its fit without any)."""
    lake = many(cluster.lake, cluster.folder / "many-flights")
    model = cluster.folder / "quiet"
    assert cluster.fit(lake=lake, out=model).returncode == 0
    return lake, numbers(model)


def started(cluster: Cluster, lake: Path, name: str) -> subprocess.Popen[bytes]:
    """A fit on the cluster that has finished a pass and not its work; its output is in NAME.log."""
    checkpoint, model = cluster.folder / f"{name}.checkpoint", cluster.folder / name
    command = cluster.command("--scheduler", SCHEDULER, *MINE, "--checkpoint", str(checkpoint), lake=lake, out=model)
    process = cluster.hosts["client"].start(*command, environment=pins(), log=f"{name}.log")
    until(lambda: passes_kept(checkpoint) > 1 or process.poll() is not None, 120, "a first pass")
    assert process.poll() is None, cluster.hosts["client"].log(f"{name}.log")
    return process


def test_a_fit_that_loses_its_scheduler_ends_with_5_and_resumes(
    cluster: Cluster, long_fit: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    lake, quiet = long_fit
    process = started(cluster, lake, "interrupted")
    kill(cluster, cluster.scheduler)
    assert process.wait(60) == 5
    said = cluster.hosts["client"].log("interrupted.log")
    assert said.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in said, said
    until(lambda: supervised(cluster, [cluster.scheduler, *cluster.workers]), 90, "the cluster is back")
    wait_for_workers(cluster, 2)
    checkpoint, model = cluster.folder / "interrupted.checkpoint", cluster.folder / "interrupted"
    done = cluster.fit("--scheduler", SCHEDULER, *MINE, "--checkpoint", str(checkpoint), lake=lake, out=model)
    assert done.returncode == 0, done.stderr
    assert numbers(model) == quiet
    # the passes that were written down were not made again
    resumed = work_done(cluster)
    assert cluster.fit("--scheduler", SCHEDULER, *MINE, lake=lake).returncode == 0
    assert resumed < work_done(cluster) - resumed


def test_a_fit_that_loses_a_worker_goes_on(cluster: Cluster, long_fit: tuple[Path, dict[str, dict[str, str]]]) -> None:
    """The worker, its nanny and all: what it held is read again by the other."""
    lake, quiet = long_fit
    process = started(cluster, lake, "unlucky")
    kill(cluster, cluster.workers[0])
    assert process.wait(120) == 0, cluster.hosts["client"].log("unlucky.log")
    assert numbers(cluster.folder / "unlucky") == quiet
    until(lambda: supervised(cluster, cluster.workers[:1]), 60, "the worker is back")
    wait_for_workers(cluster, 2)
