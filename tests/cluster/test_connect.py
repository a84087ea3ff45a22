"""A cluster named by an address or a file: what is refused at once, what nobody answers, and what is said."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest
from click.testing import CliRunner
from distributed.client import default_client

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster import connect
from daskglm.cluster.connect import connected
from daskglm.errors import ClusterError, DesignError
from tests.cluster.problem import FORMULA, blocks_under, left_on


def enter(**options: Any) -> None:
    with connect.connected(options):
        pytest.fail("nobody is there")


def test_no_scheduler_is_no_client() -> None:
    with connect.connected({"scheduler": None, "tls_cert": None}) as client:
        assert client is None


@pytest.mark.parametrize(
    "options, match",
    [
        ({"tls_cert": "a.pem"}, "name one scheduler"),
        ({"scheduler": "tcp://127.0.0.1:1", "scheduler_file": "s.json"}, "name one scheduler"),
        ({"scheduler": "tcp://127.0.0.1:1", "tls_cert": "a.pem"}, "for a scheduler at tls://"),
        ({"scheduler": "tls://127.0.0.1:1", "tls_cert": "a.pem"}, "three files"),
        ({"scheduler": "tls://127.0.0.1:1", "tls_ca_file": "a", "tls_cert": "b", "tls_key": "c"}, "a does not exist"),
        ({"scheduler": "tls://127.0.0.1:1"}, "takes certificates"),
    ],
)
def test_a_request_that_cannot_be_meant(options: dict[str, str], match: str) -> None:
    with pytest.raises(DesignError, match=match):
        enter(**options)


def test_certificates_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "not.pem"
    file.write_text("nothing")
    with pytest.raises(DesignError, match=r"cannot be used.*not\.pem"):
        enter(scheduler="tls://127.0.0.1:1", tls_ca_file=file, tls_cert=file, tls_key=file)


def test_encryption_that_dask_is_told_to_demand() -> None:
    """Dask refuses it as well, and keeps a process that lets it do so for a minute."""
    with dask.config.set({"distributed.comm.require-encryption": True}), pytest.raises(DesignError, match="tls://"):
        enter(scheduler="tcp://127.0.0.1:1")


def test_a_file_that_no_scheduler_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.2)
    path = tmp_path / "scheduler.json"
    with pytest.raises(ClusterError, match="did not appear"):
        enter(scheduler_file=path)
    path.write_text("")
    with pytest.raises(ClusterError, match="did not appear"):
        enter(scheduler_file=path)
    for text in ("{", "[]", json.dumps({"id": 1})):
        path.write_text(text)
        with pytest.raises(DesignError, match="not the file of a scheduler"):
            enter(scheduler_file=path)


def test_nobody_answers_in_one_sentence(tmp_path: Path) -> None:
    """In a process of its own: nothing else is said on the way out, and it does not stay."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        script = (
            "import sys; from daskglm.cluster import connect; connect.CONNECT_SECONDS = 1.0\n"
            "from daskglm.cli import main; main(['fit', 'y ~ x', sys.argv[1], '--scheduler', sys.argv[2]])"
        )
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        lake = str(tmp_path / "lake.parquet")
        pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [1.0, 3.0, 2.0]}).to_parquet(lake)
        done = subprocess.run([sys.executable, "-c", script, lake, address], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (5, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the scheduler at {address} cannot be reached: ")


def test_dask_speaks_again_afterwards() -> None:
    log = logging.getLogger("distributed.client")
    before = log.level
    with connect._quiet():
        assert not log.isEnabledFor(logging.ERROR)
    assert log.level == before


# -- somebody answers ---------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for longer than this."""
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.5)


def nobody() -> str:
    """An address where no one listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["tcp://", ""])
def test_a_scheduler_that_does_not_answer_is_a_sentence(hasty: None, scheme: str) -> None:
    address = scheme + nobody().removeprefix("tcp://")
    began = time.monotonic()
    with (
        pytest.raises(ClusterError, match=f"the scheduler at {address} cannot be reached: .+"),
        connected({"scheduler": address}),
    ):
        pass
    assert time.monotonic() - began < 5.0


def test_a_refused_connection_is_not_asked_for_as_long_as_a_silent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect.REFUSED_SECONDS < 3.0 < connect.CONNECT_SECONDS
    began = time.monotonic()
    with pytest.raises(ClusterError, match="cannot be reached: the connection is refused"):
        enter(scheduler=nobody())
    assert time.monotonic() - began < 8.0
    # whoever says that a scheduler is still to come is patient
    monkeypatch.setenv("DASKGLM_PATIENCE", "4")
    began = time.monotonic()
    with pytest.raises(ClusterError, match="cannot be reached: "):
        enter(scheduler=nobody())
    assert 4.0 < time.monotonic() - began < 12.0


def test_silence_is_waited_for_longer_than_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "REFUSED_SECONDS", 0.2)
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(ClusterError, match="cannot be reached: "):
            enter(scheduler=f"tcp://127.0.0.1:{silent.getsockname()[1]}")
    assert time.monotonic() - began > 1.5


def test_who_answers_is_no_scheduler(hasty: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(1 << 16)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ClusterError, match="cannot be reached: "):
            enter(scheduler=f"tcp://127.0.0.1:{other.getsockname()[1]}")
        thread.join(10)


def test_a_host_that_is_none_is_a_sentence(hasty: None) -> None:
    with pytest.raises(ClusterError, match=r"the scheduler at tcp://host\.invalid:8786 cannot be reached"):
        enter(scheduler="tcp://host.invalid:8786")


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9786", "smoke://a:1", "inproc://a:1", "tcp://a", "a", "tcp://:1", "tcp://a:1:2", "", "8786"],
)
def test_an_address_that_is_none_is_refused_before_anyone_is_asked(address: str, lake: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    refused = invoke("fit", "y ~ x", str(lake), "--scheduler", address)
    assert refused.exit_code == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: {address!r} is no address of a scheduler: tcp://host:port, ")
    place = tmp_path / "scheduler.json"
    place.write_text(json.dumps({"address": address}))
    with pytest.raises(DesignError, match="is no address of a scheduler"):
        enter(scheduler_file=place)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize("address", ["tcp://a:1", "tls://a.b-c:8786", "a_b:1", "10.0.0.1:8786", "tcp://[::1]:8786"])
def test_addresses(address: str) -> None:
    assert connect._ADDRESS.fullmatch(address)


def test_a_scheduler_file_that_is_being_written_is_read_when_it_is_whole(cluster: Any, tmp_path: Path) -> None:
    place = tmp_path / "scheduler.json"
    text = json.dumps({"address": cluster.scheduler_address})
    place.write_text(text[:9])
    timer = threading.Timer(0.3, lambda: place.write_text(text))
    timer.start()
    with connected({"scheduler_file": place}) as client:
        assert client.scheduler.address == cluster.scheduler_address
    timer.join()


def test_a_client_is_closed_at_the_end_and_is_nobody_elses(cluster: Any, tmp_path: Path) -> None:
    place = tmp_path / "scheduler.json"
    place.write_text(json.dumps(cluster.scheduler.identity()))
    for options in ({"scheduler": cluster.scheduler_address}, {"scheduler_file": str(place)}):
        with connected(options) as client:
            assert client.status == "running"
            with pytest.raises(ValueError):
                default_client()
        assert client.status == "closed"
    with pytest.raises(ZeroDivisionError), connected({"scheduler": cluster.scheduler_address}) as client:
        raise ZeroDivisionError
    assert client.status == "closed"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def files_of(model: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in model.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quiet")
def test_the_command_line_gives_the_same_model_byte_for_byte(
    cluster: Any, client: Any, lake: Path, tmp_path: Path
) -> None:
    place = tmp_path / "scheduler.json"
    place.write_text(json.dumps(cluster.scheduler.identity()))
    fit = ["fit", FORMULA, str(lake), "--family", "poisson"]
    here = invoke(*fit, "--out", str(tmp_path / "here"))
    assert here.exit_code == 0, here.output
    expected = files_of(tmp_path / "here")
    assert "parameters.parquet" in expected
    named = [
        ["--scheduler", cluster.scheduler_address, "--keep", "disk", "--checkpoint", str(tmp_path / "log")],
        ["--scheduler-file", str(place)],
    ]
    for number, options in enumerate(named):
        there = invoke(*fit, *options, "--out", str(tmp_path / str(number)))
        assert there.exit_code == 0, there.output
        assert there.stdout == here.stdout
        found = files_of(tmp_path / str(number))
        assert found["parameters.parquet"] == expected["parameters.parquet"]
        assert dg.load(tmp_path / str(number)).params.equals(dg.load(tmp_path / "here").params)
    assert not (tmp_path / "log").exists()
    assert left_on(client) == []


@pytest.mark.usefixtures("quiet", "hasty")
def test_exit_codes_say_whose_mistake_it_is(cluster: Any, lake: Path) -> None:
    fit = ["fit", "y ~ x", str(lake)]
    unreachable = invoke(*fit, "--scheduler", nobody())
    assert unreachable.exit_code == 5
    assert unreachable.stderr.startswith("error: the scheduler at tcp://127.0.0.1:")
    assert len(unreachable.stderr.splitlines()) == 1
    for options in (["--threads", "2"], ["--memory-limit", "1GiB"]):
        refused = invoke(*fit, "--scheduler", cluster.scheduler_address, *options)
        assert refused.exit_code == 2
        assert "leave them out where a cluster is named" in refused.stderr
    both = invoke(*fit, "--scheduler", "tcp://a:1", "--scheduler-file", "f")
    assert both.exit_code == 2


@pytest.mark.usefixtures("quiet")
def test_what_is_silenced_is_said_when_debugging(cluster: Any, lake: Path) -> None:
    logger = logging.getLogger("distributed")
    logger.setLevel(logging.WARNING)
    assert invoke("fit", "y ~ x", str(lake), "--scheduler", cluster.scheduler_address, "--debug").exit_code == 0
    assert logger.level == logging.WARNING
    assert invoke("fit", "y ~ x", str(lake), "--scheduler", cluster.scheduler_address).exit_code == 0
    assert logger.level > logging.CRITICAL


def test_a_job_file_names_a_cluster(quiet: None, cluster: Any, lake: Path, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    job.write_text(
        f'formula = "{FORMULA}"\ndata = "{lake}"\nfamily = "poisson"\nscheduler = "{cluster.scheduler_address}"\n'
    )
    found = invoke("fit", str(job))
    assert found.exit_code == 0, found.output
    assert "dashboard" in found.stderr


# -- signals -----------------------------------------------------------------------------------------------------------

# Every row group is a partition of its own, and a pass takes long enough for a signal to arrive in it.
SLOWLY = """
import sys, time
from daskglm import estimation
from daskglm.cli import main
from daskglm.cluster import dask as engine, lakes
lakes.LEAF_BYTES, estimation.PILOT_ROWS = 1, 1_000
finish = engine.Cluster.finish
def slowly(self, *arguments):
    finish(self, *arguments)
    if self.phase == "pass":
        time.sleep(0.5)
engine.Cluster.finish = slowly
main(sys.argv[1:])
"""


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_signal_ends_a_fit_as_an_interrupt_does(
    cluster: Any, client: Any, lake: Path, scratch: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    log = tmp_path / "log"
    arguments = ["fit", FORMULA, str(lake), "--family", "poisson", "--keep", "disk", "--checkpoint", str(log)]
    command = [sys.executable, "-c", SLOWLY, *arguments, "--scheduler", cluster.scheduler_address]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 60.0
        while not (log / "total-00003.npz").exists() and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        assert blocks_under(scratch)
        began = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, errors
    assert time.monotonic() - began < 5.0
    assert output == ""
    assert errors.splitlines()[-1] == ("interrupted" if code == 130 else f"ended by {number.name}")
    assert "Traceback" not in errors
    assert len(list(log.glob("total-*.npz"))) >= 4
    assert left_on(client) == []
    assert blocks_under(scratch) == []


def test_signals_are_as_before_after_a_command(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)
    assert invoke("example", "flights", "--help").exit_code == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGHUP)) == before
