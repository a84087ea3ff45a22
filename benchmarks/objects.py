"""Lakes of many objects behind a slow link: seconds to plan and to fit, against what latency alone would take."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.slow_link import slow_link
from tests.cluster import weed

BUCKET = "benchmarks"
FORMULA = "claims ~ x1 + x2 + area"


def content(number: int, rows: int) -> bytes:
    """One object: a count, two floats and a factor of five levels."""
    generator = np.random.default_rng([2013, number])
    x1, x2 = generator.normal(size=(2, rows))
    area = generator.integers(0, 5, rows).astype(np.int32)
    claims = generator.poisson(np.exp(-2.0 + 0.1 * x1 - 0.2 * x2 + 0.1 * area))
    areas = pa.DictionaryArray.from_arrays(pa.array(area), pa.array([f"area{k}" for k in range(5)]))
    sink = io.BytesIO()
    pq.write_table(pa.table({"claims": claims, "x1": x1, "x2": x2, "area": areas}), sink)
    return sink.getvalue()


def written(endpoint: str, count: int, rows: int) -> int:
    """Put the objects into the store; bytes of one."""
    import fsspec

    store = fsspec.filesystem(
        "s3", key=weed.KEY, secret=weed.SECRET, endpoint_url=endpoint, skip_instance_cache=True,
        config_kwargs={"max_pool_connections": 32},
    )  # fmt: skip
    if not store.exists(BUCKET):
        store.mkdir(BUCKET)

    async def put(numbers: range, contents: list[bytes]) -> None:
        client = await store.get_s3(BUCKET)
        await asyncio.gather(
            *(
                client.put_object(Bucket=BUCKET, Key=f"lake/part-{number:06d}.parquet", Body=body)
                for number, body in zip(numbers, contents, strict=True)
            )
        )

    size = 0
    for start in range(0, count, 64):
        numbers = range(start, min(start + 64, count))
        contents = [content(number, rows) for number in numbers]
        size = len(contents[0])
        fsspec.asyn.sync(store.loop, put, numbers, contents)
    return size


def far(command: list[str], variables: dict[str, str]) -> tuple[dict[str, float], float, float]:
    """A process on the far side: its result, its seconds from outside and its peak GB."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | variables)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"the far process ended with {process.returncode}")
    return json.loads(output.strip().splitlines()[-1]), time.perf_counter() - began, usage.ru_maxrss / 1e6


def report(objects: int, rows: int, latency: float, errors: float, concurrency: int, folder: Path) -> None:
    """Everything, once."""
    data = folder / f"objects-{objects}-{rows}"
    shutil.rmtree(data, ignore_errors=True)
    with contextlib.ExitStack() as stack:
        link = stack.enter_context(slow_link(latency))
        stack.callback(shutil.rmtree, data, True)
        store = stack.enter_context(weed.seaweed(data))
        # by a process of its own, since s3fs closes its connections in whatever event loop it finds
        writer = [sys.executable, "-m", "benchmarks.objects", "write", store.endpoint, str(objects), str(rows)]
        size = int(subprocess.run(writer, check=True, stdout=subprocess.PIPE, text=True).stdout)
        click.echo(f"{objects:,} objects of {rows:,} rows and {size / 1e3:.0f} kB; round trip {latency * 1e3:g} ms by "
                   f"{link.kind}; {errors:.1%} of requests answered 503; {concurrency} requests at once")  # fmt: skip
        proxy = stack.enter_context(weed.proxy(store.port, link.host))
        proxy.share(errors)
        variables = weed.environment(proxy.endpoint) | {"DASKGLM_OBJECT_CONCURRENCY": str(concurrency)}
        me = [sys.executable, "-m", "benchmarks.objects"]
        bound = 3 * objects / concurrency * latency
        source = f"s3://{BUCKET}/lake/*.parquet"
        result, _, peak = far(link.command(*me, "plan", source), variables)
        asked, faults = len(proxy.requests), proxy.faults
        click.echo(f"list and plan: {result['seconds']:.1f} s, bound {bound:.1f} s; {asked:,} requests, {faults} of them "
                   f"refused; {result['cpu']:.1f} s of processor, peak {peak:.2f} GB")  # fmt: skip
        proxy.requests.clear()
        proxy.faults = 0
        result, seconds, peak = far(link.command(*me, "fit", source), variables)
        click.echo(f"fit of {int(result['rows']):,} rows: {result['seconds']:.1f} s ({seconds:.1f} s with imports), of which "
                   f"planning {result['plan']:.1f} s and reading {result['read']:.1f} s; {len(proxy.requests):,} requests, "
                   f"{proxy.faults} of them refused; {result['cpu']:.1f} s of processor, peak {peak:.2f} GB")  # fmt: skip


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _worker(what: str, source: str) -> dict[str, float]:
    from daskglm.cluster.lakes import open_lake

    began, spent = time.perf_counter(), _cpu()
    if what == "plan":
        lake = open_lake(source)
        lake.select(["claims", "x1", "x2", "area"])
        return {"seconds": time.perf_counter() - began, "cpu": _cpu() - spent, "leaves": len(lake.leaves)}
    import daskglm as dg
    from daskglm import fit as fitting

    dg.glm("y ~ x", {"y": [0.0, 1.0, 2.0], "x": [0.0, 1.0, 3.0]}, family="poisson")  # kernels compiled
    marks: dict[str, float] = {}
    opened, kept = fitting._Fitting.__init__, fitting.LocalPartitions.kept_with_total

    def starts(self: object, *args: object, **options: object) -> None:
        marks["plan"] = time.perf_counter() - began
        opened(self, *args, **options)  # type: ignore[arg-type]

    def reads(self: object, *args: object, **options: object) -> object:
        start = time.perf_counter()
        result = kept(self, *args, **options)  # type: ignore[arg-type]
        marks["read"] = time.perf_counter() - start
        return result

    fitting._Fitting.__init__, fitting.LocalPartitions.kept_with_total = starts, reads  # type: ignore[method-assign, assignment]
    began, spent = time.perf_counter(), _cpu()
    fit = dg.glm(FORMULA, source, family="poisson", progress=False)
    return {"seconds": time.perf_counter() - began, "cpu": _cpu() - spent, "rows": float(fit.nobs), **marks}


if __name__ == "__main__":
    if sys.argv[1] == "write":
        print(written(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        print(json.dumps(_worker(sys.argv[1], sys.argv[2])))
