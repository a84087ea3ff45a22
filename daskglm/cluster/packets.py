"""Rows on their way to the bucket that their key names: held in memory while they fit, in a file per bucket beyond that."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from daskglm.cluster import machine
from daskglm.cluster.cells import SPARE_DISK, remove_folder, spill_folder, spill_parent
from daskglm.cluster.folders import reason
from daskglm.errors import DesignError


@final
@dataclass
class _Bucket:
    """What has come for one bucket, in the order of the leaves: packets, and where in the file those before them lie."""

    held: list[Any] = field(default_factory=list)
    written: list[tuple[Any, Any, list[tuple[str, tuple[int, ...], int]]]] = field(default_factory=list)


@final
class Packets:
    """Packets of all leaves by bucket. budget: bytes that are held before all that is held goes to the buckets' files, which
    lie in a folder of their own and go with it.
    """

    def __init__(self, buckets: int, budget: int) -> None:
        self._buckets = [_Bucket() for _ in range(buckets)]
        self._budget, self._held = budget, 0
        self._folder: str | None = None
        self.spilled = 0

    def put(self, packets: Sequence[Any]) -> None:
        """Those of the next leaf, one for each bucket or None."""
        for bucket, packet in zip(self._buckets, packets, strict=True):
            if packet is not None:
                bucket.held.append(packet)
                self._held += packet.nbytes
        if self._held > self._budget:
            self._spill()

    def take(self, number: int) -> list[Any]:
        """The packets of a bucket, which is given up, in the order of the leaves."""
        bucket, self._buckets[number] = self._buckets[number], _Bucket()
        if not bucket.written:
            return bucket.held
        path = self._path(number)
        with open(path, "rb") as handle:
            found = [kind.unpack(header, _read(handle, layout, path)) for kind, header, layout in bucket.written]
        os.unlink(path)
        return found + bucket.held

    def close(self) -> None:
        """Give up packets and folder."""
        self._buckets = []
        if self._folder is not None:
            self._finalizer()

    def _path(self, number: int) -> str:
        assert self._folder is not None
        return os.path.join(self._folder, f"{number}.packets")

    def _spill(self) -> None:
        if self._folder is None:
            self._open()
        assert self._folder is not None
        free = shutil.disk_usage(self._folder).free
        if free < self._held + SPARE_DISK:
            raise DesignError(
                f"rows by cluster need more than the {free / 1e9:.1f} GB that are free in {self._folder}: set "
                "DASKGLM_SPILL_DIR to a larger disk, or allow more memory"
            )
        for number, bucket in enumerate(self._buckets):
            try:
                self._write(number, bucket)
            except OSError as error:
                path = self._path(number)
                raise DesignError(
                    f"rows by cluster, {self._held:,} bytes, cannot be written to {path}: {reason(error, near=path)}; "
                    "set DASKGLM_SPILL_DIR to a larger disk, or allow more memory"
                ) from None
        self.spilled += self._held
        self._held = 0

    def _write(self, number: int, bucket: _Bucket) -> None:
        """Add what a bucket holds to its file."""
        if not bucket.held:
            return
        with open(self._path(number), "ab") as handle:
            for packet in bucket.held:
                header, arrays = packet.pack()
                layout = []
                for array in arrays:
                    array = np.ascontiguousarray(array)
                    handle.write(array.data.cast("B") if array.size else b"")
                    layout.append((array.dtype.str, array.shape, array.nbytes))
                bucket.written.append((type(packet), header, layout))
        bucket.held = []

    def _open(self) -> None:
        parent = spill_parent()
        if machine.on_memory(parent):
            raise DesignError(
                f"rows by cluster do not fit in memory and would go to {parent}, which is memory itself: set "
                "DASKGLM_SPILL_DIR to a real disk"
            )
        self._folder = spill_folder(parent)
        self._finalizer = weakref.finalize(self, remove_folder, self._folder)


def _read(handle: Any, layout: list[tuple[str, tuple[int, ...], int]], path: str) -> list[Any]:
    arrays = []
    for dtype, shape, size in layout:
        array = np.empty(shape, dtype)
        if size and handle.readinto(array.data.cast("B")) != size:
            raise DesignError(f"{path} was cut short: is the disk full, or was it cleaned?")
        arrays.append(array)
    return arrays
