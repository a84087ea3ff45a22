"""A cluster named by an address or a file: what is refused at once, what nobody answers, and what is said."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pytest

from daskglm.cluster import connect
from daskglm.errors import ClusterError, DesignError


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
