"""A network with latency on this machine, for one process: a namespace of its own, and packets that take their time.

Where the kernel has netem it delays them; where it has not, a process carries packets between two tunnels and holds each back.
Only traffic to the host's address on this link is slow. Needs root.
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

HOST, GUEST = "10.213.77.1", "10.213.77.2"
TUNNEL_MTU = 9000
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000


@dataclass(frozen=True)
class Link:
    """namespace: where the far process runs; host: the address at which it finds this machine; kind: what delays packets."""

    namespace: str
    host: str
    kind: str

    def command(self, *words: str) -> list[str]:
        """A command line that runs these words on the far side."""
        return ["ip", "netns", "exec", self.namespace, *words]


@contextlib.contextmanager
def slow_link(seconds: float) -> Iterator[Link]:
    """A link whose round trip takes this long, for the duration. RuntimeError where it cannot be made."""
    if os.geteuid() != 0:
        raise RuntimeError("a slow link can only be made by root")
    name = f"dg{os.getpid()}"
    ours, theirs = f"{name}a", f"{name}b"
    _run("ip", "netns", "add", name)
    helper: subprocess.Popen[bytes] | None = None
    try:
        half = f"{seconds / 2 * 1e3:g}ms"
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
        delay = ["root", "netem", "delay", half, "limit", "100000"]
        if (
            subprocess.run(["tc", "qdisc", "add", "dev", ours, *delay], capture_output=True, check=False).returncode
            == 0
        ):
            kind = "netem"
            _run("ip", "link", "set", theirs, "netns", name)
            _run("ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", theirs, *delay)
        else:
            kind = "tunnels, since this kernel has no netem"
            _run("ip", "link", "del", ours)
            helper = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.slow_link", ours, theirs, name, str(seconds / 2)],
                stdout=subprocess.PIPE,
            )
            assert helper.stdout is not None
            if helper.stdout.readline() != b"ready\n":
                raise RuntimeError("tunnels cannot be made here")
        _run("ip", "addr", "add", HOST, "peer", GUEST, "dev", ours)
        _run("ip", "link", "set", ours, "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "addr", "add", GUEST, "peer", HOST, "dev", theirs)
        _run("ip", "-n", name, "link", "set", theirs, "up")
        yield Link(name, HOST, kind)
    finally:
        if helper is not None:
            helper.terminate()
            helper.wait()
        subprocess.run(["ip", "link", "del", ours], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


def carry(ours: str, theirs: str, namespace: str, delay: float) -> None:
    """Make both tunnels, move one to the namespace, and carry packets between them until the end."""
    ends = [_tunnel(ours), _tunnel(theirs)]
    _run("ip", "link", "set", theirs, "netns", namespace)
    _run("ip", "link", "set", ours, "mtu", str(TUNNEL_MTU))
    _run("ip", "-n", namespace, "link", "set", theirs, "mtu", str(TUNNEL_MTU))
    print("ready", flush=True)
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, end, packet = waiting.popleft()
            with contextlib.suppress(OSError):
                os.write(end, packet)
        ready, _, _ = select.select(ends, [], [], max(waiting[0][0] - now, 0) if waiting else None)
        due = time.monotonic() + delay
        for end in ready:
            other = ends[1 - ends.index(end)]
            with contextlib.suppress(OSError):
                while True:
                    waiting.append((due, other, os.read(end, 65536)))


def _tunnel(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]))
