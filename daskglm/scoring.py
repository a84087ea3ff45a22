"""Predictions of whatever data there are: tables, arrays and sparse matrices at once, Dask collections lazily."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa

from daskglm.cluster.collections import beside, is_array, is_collection, mapped
from daskglm.cluster.sources import Source, open_source
from daskglm.cluster.tables import (
    column_names,
    from_arrays,
    has_rows,
    is_sparse,
    like,
    plain_array,
    with_columns,
)
from daskglm.errors import DesignError
from daskglm.predict import Prediction, predict, result_columns, scorer, tallied, warn_unconverged
from daskglm.record import FitRecord


def scored(record: FitRecord, data: Any, wanted: Prediction, offset: Any, exposure: Any) -> Any:
    """A Series named after the kind, or a DataFrame where there is more than one column, of the library of the data."""
    import pandas as pd

    warn_unconverged(record)
    if is_collection(data):
        return _lazily(record, data, wanted, offset, exposure)
    if isinstance(data, np.ndarray) or is_sparse(data):
        others = {"offset": offset, "exposure": exposure}
        arrays = {name: plain_array(v) for name, v in others.items() if isinstance(v, (np.ndarray, pd.Series))}
        source = _arrays(record, plain_array(data), arrays)
        offset, exposure = (name if name in arrays else value for name, value in others.items())
    else:
        table, offset, exposure = _with_arrays(data, offset, exposure)
        source = open_source(table)
    columns, tally = tallied(record, source, wanted, offset, exposure)
    names = record.parameters.labelled(list(columns))
    result = like(data, names, list(columns.values()), wanted.kind != "terms" and len(columns) == 1)
    if isinstance(result, (pd.Series, pd.DataFrame)):
        result.attrs["notes"] = tally.notes
    return result


def _with_arrays(data: Any, offset: Any, exposure: Any) -> tuple[Any, Any, Any]:
    """A table in memory with arrays that were given for offset and exposure as columns, and what those options then name."""
    names, given, columns = column_names(data), {"offset": offset, "exposure": exposure}, {}
    for option, value in given.items():
        if names is not None and has_rows(value) and not is_collection(value):
            name = option
            while name in names:
                name += "_"
            columns[name], given[option] = value, name
    return (with_columns(data, columns) if columns else data), given["offset"], given["exposure"]


def _lazily(record: FitRecord, data: Any, wanted: Prediction, offset: Any, exposure: Any) -> Any:
    """Predictions for a Dask collection, as the same kind of collection; nothing is computed yet."""
    given = {"offset": offset, "exposure": exposure}
    others = {n: v for n, v in given.items() if v is not None and not isinstance(v, (str, int, float))}
    arrays = beside(data, others)
    offset, exposure = (name if name in others else value for name, value in given.items())
    source = _described(record, data, tuple(arrays))
    needed = scorer(record, wanted, source, offset, exposure).needed
    # each partition says itself of what kind objects are
    objects: frozenset[str] = getattr(source, "objects", frozenset())
    types = {name: source.types[name] for name in needed if name in source.types and name not in objects}
    score = _PredictPart(record, wanted, offset, exposure, {} if is_array(data) else types, tuple(arrays))
    columns = record.parameters.labelled(score.columns())
    single = columns[0] if wanted.kind != "terms" and len(columns) == 1 else None
    return mapped(data, score, columns, single, list(arrays.values()))


def _described(record: FitRecord, data: Any, others: tuple[str, ...]) -> Source:
    """A source of the collection's columns and of arrays beside it, to check a request against; nothing is computed."""
    if not is_array(data):
        return open_source(data)
    if data.ndim not in (1, 2):
        raise DesignError(f"X must have two dimensions, not {data.ndim}")
    width = 1 if data.ndim == 1 else data.shape[1]
    if np.isnan(width):
        raise DesignError("the number of X's columns is not known: compute_chunk_sizes() finds it")
    empty = type(data._meta) if is_sparse(data._meta) else np.zeros
    return _arrays(record, empty((0, int(width))), {name: np.zeros(0) for name in others})


def _arrays(record: FitRecord, x: Any, others: dict[str, Any]) -> Source:
    """An array's columns under the names they had when the model was fitted to an array like it, and arrays beside."""
    for name, array in others.items():
        if array.shape != (x.shape[0],):
            raise DesignError(f"{name}= has shape {array.shape}, X has {x.shape[0]} rows")
    matrix = record.design.matrix
    if matrix is not None:
        from scipy.sparse import csr_array

        rows = x if is_sparse(x) else csr_array(x)
        if rows.ndim != 2 or rows.shape[1] != len(matrix.columns):
            raise DesignError(f"the model needs {len(matrix.columns)} columns, X has {x.shape[-1]}")
        return from_arrays(rows, others, matrix.columns)[0]
    if is_sparse(x):
        raise DesignError("this model was not fitted to a sparse X: pass X.toarray(), or a table with its columns")
    return open_source({**_named(record, x), **others})


def _named(record: FitRecord, x: Any) -> dict[str, Any]:
    """The columns of an array by name."""
    names = [piece.numeric[0] for piece in record.design.dense if len(piece.numeric) == 1]
    columns = x[:, None] if x.ndim == 1 else x
    if record.design.factors or names != list(record.specification.predictors):
        raise DesignError("this model was fitted with a formula: predict needs a table with its columns")
    if columns.ndim != 2:
        raise DesignError(f"X must have two dimensions, not {columns.ndim}")
    if columns.shape[1] != len(names):
        raise DesignError(f"the model needs {len(names)} columns, X has {columns.shape[1]}")
    return dict(zip(names, columns.T, strict=True))


@final
@dataclass(frozen=True)
class _PredictPart:
    """Predictions of one partition or chunk as an array (m, number of columns), wherever it is.

    types: of the columns of a whole DataFrame, which are those of each partition; others: names of the arrays beside a
    chunk.
    """

    record: FitRecord
    wanted: Prediction
    offset: Any
    exposure: Any
    types: Mapping[str, pa.DataType]
    others: tuple[str, ...] = ()

    def columns(self) -> tuple[str, ...]:
        """Names of the result's columns."""
        return result_columns(self.record, self.wanted)

    def __call__(self, part: Any, *beside: Any) -> np.ndarray[Any, Any]:
        if isinstance(part, np.ndarray) or is_sparse(part):
            arrays = {name: plain_array(array).ravel() for name, array in zip(self.others, beside, strict=True)}
            source = _arrays(self.record, plain_array(part), arrays)
        else:
            source = open_source(part)
            known = {name: kind for name, kind in self.types.items() if not pa.types.is_null(kind)}
            source.types |= {name: kind for name, kind in known.items() if name in source.types}
        found = predict(self.record, source, self.wanted, self.offset, self.exposure, threads=1)
        # without columns, as the terms of a model of the intercept alone, there are still rows
        return np.column_stack([np.empty((part.shape[0], 0)), *(found[name] for name in self.columns())])
