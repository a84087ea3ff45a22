"""Clusters named by an address or a file: what is refused, who answers, and the same model byte for byte."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from distributed.client import default_client

import daskglm as dg
from daskglm.cli import main
from daskglm.cluster import connect
from daskglm.cluster.connect import connected
from daskglm.errors import ClusterError, DesignError
from tests.cluster.problem import FORMULA, left_on

TLS = ("tls_ca_file", "tls_cert", "tls_key")


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is waited for longer than this."""
    monkeypatch.setattr(connect, "CONNECT_SECONDS", 0.5)


@pytest.fixture
def pem(tmp_path: Path) -> dict[str, str]:
    """Three files that are no certificates."""
    files = {name: tmp_path / f"{name}.pem" for name in TLS}
    for file in files.values():
        file.write_text("no certificate")
    return {name: str(file) for name, file in files.items()}


def nobody() -> str:
    """An address where no one listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}"


def test_without_options_there_is_no_client() -> None:
    with connected({"family": "poisson", "scheduler": None, "tls_key": None}) as found:
        assert found is None


@pytest.mark.parametrize(
    "options, said",
    [
        ({"scheduler": "tcp://a:1", "scheduler_file": "f"}, "name one scheduler: --scheduler tcp://host:port, or"),
        ({"tls_cert": "c"}, "name one scheduler"),
        ({"scheduler": "tcp://a:1", "tls_cert": "c"}, "certificates are for a scheduler at tls://, not for tcp://a:1"),
        (
            {"scheduler": "tls://a:1", "tls_cert": "c", "tls_key": "k"},
            "TLS takes three files: --tls-ca-file, --tls-cert",
        ),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(DesignError, match=said), connected(options):
        pass


@pytest.mark.parametrize("missing", TLS)
def test_a_certificate_that_is_not_there_is_named(pem: dict[str, str], missing: str) -> None:
    options = {"scheduler": "tls://a:1", **pem, missing: "/no/such.pem"}
    with (
        pytest.raises(DesignError, match=f"--{missing.replace('_', '-')}: /no/such.pem does not exist"),
        connected(options),
    ):
        pass


def test_files_that_are_no_certificates_are_a_sentence(hasty: None, pem: dict[str, str]) -> None:
    options = {"scheduler": nobody().replace("tcp", "tls"), **pem}
    with pytest.raises(DesignError, match="certificates that cannot be used"), connected(options):
        pass


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


def test_an_address_that_is_none_is_a_sentence(hasty: None) -> None:
    for address in ("smoke://a:1", "tcp://host.invalid:8786"):
        with (
            pytest.raises(ClusterError, match=f"the scheduler at {address} cannot be reached"),
            connected({"scheduler": address}),
        ):
            pass


def test_a_scheduler_file_is_waited_for(hasty: None, tmp_path: Path) -> None:
    place = tmp_path / "scheduler.json"
    with (
        pytest.raises(ClusterError, match=r"the scheduler file .*scheduler.json did not appear in 0 s"),
        connected({"scheduler_file": place}),
    ):
        pass
    place.write_text('{"type": "Schedul')
    with (
        pytest.raises(DesignError, match=r"scheduler.json is not the file of a scheduler"),
        connected({"scheduler_file": place}),
    ):
        pass
    place.write_text(json.dumps({"address": nobody()}))
    with (
        pytest.raises(ClusterError, match=r"the scheduler at .*scheduler.json cannot be reached"),
        connected({"scheduler_file": place}),
    ):
        pass


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
