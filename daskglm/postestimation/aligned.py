"""Numbers of a model's rows, one line for each row of the data, in order: NaN where the model does not use the row."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from daskglm.cluster.collections import beside, is_array, is_collection, mapped
from daskglm.cluster.engine import Engine, settle
from daskglm.cluster.tables import like
from daskglm.errors import DesignError
from daskglm.postestimation.revisit import Rows, RowsOf, Visit, model_at, plan_where, recipe, source_of
from daskglm.record import FitRecord
from daskglm.writing import new_folder, write_parts

Matrix = npt.NDArray[np.float64]


class Request(Protocol):
    """What is wanted of rows; it travels to wherever they are."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers (m,)."""

    @property
    def beside(self) -> tuple[str, ...]:
        """Further columns of the data that it needs."""

    def __call__(self, rows: Rows) -> Matrix:
        """The numbers of each row that the model uses (n, m)."""


@final
@dataclass(frozen=True)
class Aligned:
    """A request's numbers for every row of a leaf (total, m)."""

    request: Request

    def __call__(self, rows: Rows) -> Matrix:
        result = np.full((rows.total, len(self.request.columns)), np.nan)
        result[rows.place] = self.request(rows)
        return result


@final
@dataclass(frozen=True)
class AlignedPart:
    """A request's numbers for every row of a partition, or of a chunk and those beside it; converter: of those to their leaf."""

    converter: Any
    rows_of: RowsOf
    request: Request

    def __call__(self, part: Any, *beside: Any) -> Matrix:
        named = part.rename(columns=str) if isinstance(part, pd.DataFrame) else part
        leaf = self.converter(0, [named, *beside])
        return Aligned(self.request)(self.rows_of(leaf))


def is_lazy(data: Any) -> bool:
    """Whether data are a Dask collection, or arrays by name of which one is."""
    return is_collection(data) or (isinstance(data, dict) and any(is_collection(value) for value in data.values()))


def aligned(
    record: FitRecord,
    data: Any,
    request: Request,
    single: bool,
    out: str | os.PathLike[str] | None,
    what: str,
    where: str | None = None,
) -> Any:
    """A Series (single) or DataFrame of the library of the data, pandas' with their index; of a Dask collection one of its kind that is lazy. out: a folder of Parquet
    files, one per leaf, in its place: the number of rows. where: a filter; rows that do not pass have NaN. One pass.
    """
    if is_lazy(data):
        if out is not None:
            raise DesignError(f"of a Dask collection {what} are lazy: leave out= out, and write them with to_parquet")
        return _lazily(record, data, request, single, where)
    target = None if out is None else new_folder(out, what)
    with Visit(record, data, request.beside, every=True, where=where) as visit:
        parts: Iterator[Matrix] = visit.map_items(Aligned(request))
        if target is not None:
            tables = (("", _table(part, request.columns)) for part in parts)
            empty = _table(np.zeros((0, len(request.columns))), request.columns)
            return write_parts(target, tables, empty, what)
        found = np.concatenate(list(parts))
        result = like(data, record.parameters.labelled(request.columns), list(found.T), single)
        if isinstance(result, (pd.Series, pd.DataFrame)):
            result.attrs |= {"notes": visit.notes, "ledger": visit.ledger}
        return result


def _lazily(record: FitRecord, data: Any, request: Request, single: bool, where: str | None) -> Any:
    if is_collection(data) and is_array(data):
        raise DesignError(
            'an array alone has no response: pass {"X": X, "y": y}, and what else the model was fitted with'
        )
    x: Any = data["X"] if isinstance(data, dict) else data
    if isinstance(data, dict) and not is_array(x):
        raise DesignError("pass one Dask DataFrame with every column of the model, or Dask arrays {'X': X, 'y': y}")
    plan = plan_where(record, where)
    source: Any = source_of(record, data)
    settle(source, (*request.beside, plan.where), Engine())
    _, rows_of = recipe(record, plan, model_at(record, plan), source, request.beside, every=True)
    others = beside(x, {n: v for n, v in data.items() if n != "X"}) if isinstance(data, dict) else {}
    part = AlignedPart(source.converter, rows_of, request)
    names = record.parameters.labelled(request.columns)
    return mapped(x, part, names, names[0] if single else None, list(others.values()))


def _table(numbers: Matrix, names: tuple[str, ...]) -> pa.Table:
    columns = [pa.array(np.ascontiguousarray(column), from_pandas=True) for column in numbers.T]
    return pa.table(columns, names=list(names))
