"""deploy/slurm: the one-job pattern on a Slurm of its own, a controller and two nodes made of name spaces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.machine import (
    DEPLOY,
    LATE,
    PATH,
    Host,
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

ADDRESSES = {"node_1": "10.78.0.1/24", "node_2": "10.78.0.2/24"}
CONFIGURATION = """
ClusterName=test
SlurmctldHost=node-1
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/lib/slurm/controller
SlurmdSpoolDir=/var/lib/slurm/node
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
ReturnToService=2
KillWait=2
JobRequeue=1
NodeName=node-[1-2] CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
# The smallest allocation of the test in place of that in the script
SIZE = ("--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=2000M")


@dataclass
class Slurm:
    nodes: dict[str, Host]
    folder: Path
    lake: Path

    def run(self, *command: str, seconds: float = 240, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of a user on the first node, in the folder that is shared, with this Python's packages."""
        environment = {"PATH": f"{Path(sys.executable).parent}:{PATH}", "DASKGLM_CACHE_DIR": str(self.folder / "cache")}
        return self.nodes["node-1"].run(
            "env", f"--chdir={self.folder}", *command, environment=environment, seconds=seconds, check=check
        )

    def submit(self, job: str, *, wait: bool, size: tuple[str, ...] = SIZE) -> tuple[str, int]:
        """(number, exit code) of a job."""
        waiting = ["--wait"] if wait else []
        done = self.run("sbatch", "--parsable", *waiting, *size, "fit.sbatch", job, check=False)
        return done.stdout.strip(), done.returncode

    def state(self, number: str) -> dict[str, str]:
        shown = self.run("scontrol", "--oneliner", "show", "job", number).stdout
        return dict(re.findall(r"(\w+)=(\S*)", shown))

    def write(self, name: str, formula: str = LATE, lake: Path | None = None) -> Path:
        """A job file; returns where its model will be."""
        out = self.folder / f"{name}-model"
        text = f'formula = "{formula}"\ndata = "{lake or self.lake}"\nfamily = "binomial"\nout = "{out}"\n'
        (self.folder / f"{name}.toml").write_text(text)
        return out

    def show(self) -> None:
        for path in sorted(
            [*self.folder.glob("*.out"), *self.folder.glob("*/*.log"), *self.folder.glob("hosts/*/*.log")]
        ):
            print(f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-4000:]}")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    need_root()
    need_processor()
    need_commands({
        "sbatch": "slurm-client", "slurmctld": "slurmctld", "slurmd": "slurmd", "munged": "munge", "ip": "iproute2",
        "openssl": "openssl",
    })  # fmt: skip
    with open_folder() as folder, hosts(folder / "hosts", **ADDRESSES) as nodes:
        shutil.copy(DEPLOY / "slurm/fit.sbatch", folder)
        lake = folder / "flights"
        subprocess.run([sys.executable, "-m", "daskglm", "example", "flights", str(lake)], check=True)
        key = os.urandom(128)
        for name, node in nodes.items():
            for path in ("/var/lib", "/var/log"):
                node.own(path)
            node.run("mount", "-t", "tmpfs", "tmpfs", "/run")
            node.run(
                "install", "-d", "/run/munge", "/var/log/munge", "/var/lib/slurm/controller", "/var/lib/slurm/node"
            )
            node.write("/etc/slurm/slurm.conf", CONFIGURATION)
            (node.folder / "key").write_bytes(key)
            node.run("install", "--mode=600", str(node.folder / "key"), "/etc/munge/key")
            node.start("munged", "--foreground", "--force", "--key-file=/etc/munge/key", log="munged.log")
            until(lambda node=node: node.run("munge", "-n", check=False).returncode == 0, 20, "munged answers")
            if name == "node-1":
                node.start("slurmctld", "-D", log="slurmctld.log")
            node.start("slurmd", "-D", "-N", name, log="slurmd.log")
        slurm = Slurm(nodes, folder, lake)
        try:
            idle = ["idle", "idle"]
            until(
                lambda: slurm.run("sinfo", "-hN", "-o%t", check=False).stdout.split() == idle, 60, "both nodes are idle"
            )
            yield slurm
        finally:
            slurm.show()


def test_the_script_pins_what_the_others_pin() -> None:
    text = (DEPLOY / "slurm/fit.sbatch").read_text()
    exported = "\n".join(re.findall(r"^export (\w+=[\w\"+, .-]+)$", text, re.MULTILINE))
    pins = parse_environment((DEPLOY / "cpu.env").read_text())
    assert {name: value for name, value in parse_environment(exported).items() if name in pins} == pins


def test_a_job_ends_with_the_exit_code_of_its_fit(slurm: Slurm) -> None:
    model = slurm.write("late")
    number, code = slurm.submit("late.toml", wait=True)
    assert code == 0
    assert numbers(model)
    run = slurm.folder / f"daskglm-{number}"
    assert {path.name for path in run.iterdir()} >= {"scheduler.log", "worker-0.log", "worker-1.log"}
    assert not list(run.glob("*.pem"))
    nodes = {
        re.findall(r"Start worker at: +tls://([0-9.]+)", (run / f"worker-{k}.log").read_text())[-1] for k in (0, 1)
    }
    assert nodes == {"10.78.0.1", "10.78.0.2"}


def test_a_wrong_request_is_2_through_sbatch(slurm: Slurm) -> None:
    slurm.write("wrong", formula="I(arr_delay > 15) ~ no_such_column")
    number, code = slurm.submit("wrong.toml", wait=True)
    assert code == 2
    assert "no_such_column" in (slurm.folder / f"daskglm-{number}.out").read_text()
    assert slurm.state(number)["Restarts"] == "0"


@pytest.fixture(scope="module")
def long_fit(slurm: Slurm) -> tuple[Path, dict[str, dict[str, str]]]:
    """(a lake of many copies of the flights, whose passes take long enough to be killed in, its uninterrupted fit)."""
    lake = many(slurm.lake, slurm.folder / "many-flights")
    model = slurm.write("quiet", lake=lake)
    assert slurm.submit("quiet.toml", wait=True)[1] == 0
    return lake, numbers(model)


def stopped_after_a_pass(slurm: Slurm, name: str) -> str:
    """The number of a job whose fit stands still, its first pass kept in the checkpoint."""
    number, code = slurm.submit(f"{name}.toml", wait=False)
    assert code == 0
    checkpoint = slurm.folder / f"{name}.checkpoint"
    until(lambda: passes_kept(checkpoint) > 1, 120, "a first pass")
    slurm.nodes["node-1"].run("pkill", "-STOP", "-f", "daskglm fit")
    assert not (slurm.folder / f"{name}-model").exists(), "the fit was over before it could be killed"
    return number


def test_a_job_that_is_requeued_in_mid_fit_resumes(
    slurm: Slurm, long_fit: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    """As after preemption, or on the nodes that are left when one has died."""
    lake, uninterrupted = long_fit
    model = slurm.write("requeued", lake=lake)
    number = stopped_after_a_pass(slurm, "requeued")
    slurm.run("scontrol", "requeue", number)
    until(lambda: slurm.state(number)["JobState"] == "PENDING", 60, "the job waits again")
    # Slurm lets a requeued job wait for two minutes
    until(
        lambda: slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False).returncode == 0,
        60, "the job may start",
    )  # fmt: skip
    until(lambda: slurm.state(number)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 240, "the job ends")
    state = slurm.state(number)
    assert (state["JobState"], state["ExitCode"], state["Restarts"]) == ("COMPLETED", "0:0", "1")
    assert numbers(model) == uninterrupted


def test_a_job_that_is_cancelled_in_mid_fit_resumes_when_submitted_again(
    slurm: Slurm, long_fit: tuple[Path, dict[str, dict[str, str]]]
) -> None:
    lake, uninterrupted = long_fit
    model = slurm.write("cancelled", lake=lake)
    number = stopped_after_a_pass(slurm, "cancelled")
    slurm.run("scancel", number)
    until(lambda: slurm.state(number)["JobState"] == "CANCELLED", 60, "the job is gone")
    assert not model.exists()
    assert slurm.submit("cancelled.toml", wait=True)[1] == 0
    assert numbers(model) == uninterrupted
