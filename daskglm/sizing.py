"""Bytes and arithmetic that a fit takes in this process, known before its first pass over rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from daskglm.design.design import Design
from daskglm.errors import DesignError
from daskglm.totals.moments import AnyModel, Model

# Matrices of coefficients by coefficients that a fit holds at once, at most: with a dense Gram the
# Gram, its selection, its factor, the inverse and what becomes of it, and more where the covariance
# is not that of the model; with a bordered one none, unless the covariance is not that of the
# model.
DENSE_MATRICES, BORDERED_MATRICES = 10, 0
DENSE_OF_OTHERS, BORDERED_OF_OTHERS = 12, 9
# Rows of an inverse that are written out at once with a bordered Gram, twice.
ROWS = 2 * 512
# Tables of the levels by the other columns, likewise.
TABLES = 8
# What numbers of fewer bytes and operations there are is of no interest.
MANY_BYTES, MANY_OPERATIONS = 1e9, 1e11


@final
@dataclass(frozen=True)
class Size:
    """What a fit takes in this process.

    coefficients: p; term, levels: the term with the most columns, and how many columns that are;
    bordered: whether the Gram is factored by that term's diagonal block; bytes: held at once, at
    most; matrix: bytes of one matrix of p by p, as the covariance is; operations: floating point
    operations of one Newton step, beside those of the pass over rows.
    """

    coefficients: int
    term: str
    levels: int
    bordered: bool
    bytes: int
    matrix: int
    operations: float

    def __str__(self) -> str:
        how = f", {self.term} eliminated by its diagonal block" if self.bordered else ""
        return (
            f"{self.coefficients:,} coefficients{how}: up to {_gigabytes(self.bytes)} in this process "
            f"({_gigabytes(self.matrix)} for a covariance written out); {self.operations:.1e} operations a step"
        )

    @property
    def is_large(self) -> bool:
        """Whether a user should hear of it before it begins."""
        return self.bytes >= MANY_BYTES or self.operations >= MANY_OPERATIONS

    def require(self, limit: int) -> None:
        """DesignError where it does not fit in `limit` bytes."""
        if self.bytes <= limit:
            return
        widest = f", {self.levels:,} of them of {self.term}" if self.levels else ""
        ways = f"join rare levels of {self.term}, leave it out" if self.levels else "use fewer columns"
        raise DesignError(
            f"the model has {self.coefficients:,} coefficients{widest}: their covariance takes "
            f"{_gigabytes(self.matrix)} and the fit {_gigabytes(self.bytes)}, more than the "
            f"{_gigabytes(limit)} there are; {ways}, or give the process more memory"
        )


def size_of(model: AnyModel, design: Design, of_model: bool = True) -> Size:
    """The size of a fit of this model; of_model: whether its covariance is the inverse of the
    expected information.
    """
    p = model.n_coefficients
    columns = {piece.term: 0 for piece in design.factors}
    for name in design.term_of:
        if name in columns:
            columns[name] += 1
    term = max(columns, key=lambda name: columns[name], default="")
    # a multinomial model has as many coefficients of each column as predictors
    levels = columns.get(term, 0) * max(p // max(len(design.term_of), 1), 1)
    widest = model.widest(design.layout) if isinstance(model, Model) else None
    if widest is None:
        matrices, tables, operations = DENSE_MATRICES if of_model else DENSE_OF_OTHERS, 0, p**3 / 3.0
    else:
        piece = design.factors[widest]
        term, inside = piece.term, design.layout.counts[widest]
        border = design.width - inside
        matrices = BORDERED_MATRICES if of_model else BORDERED_OF_OTHERS
        tables = 8 * p * (TABLES * border + ROWS)
        operations = 4.0 * p * border * border + border**3
    matrix = 8 * p * p
    return Size(p, term, levels, widest is not None, matrices * matrix + tables, matrix, operations)


def require_columns_kept(design: Design, rows: int, limit: int) -> None:
    """DesignError where the columns that contrasts make of `rows` rows do not fit in `limit` bytes.

    Whether rows are kept in memory is decided by the columns that are read: a factor is a code of
    one or two bytes there, and a contrast of L levels makes L - 1 columns of it.
    """
    pieces = [piece for piece in (*design.dense, *design.factors) if piece.coded]
    held = rows * sum(design.column_bytes(piece) for piece in pieces)
    if held > limit:
        names = ", ".join(dict.fromkeys(name for piece in pieces for name in piece.coded))
        raise DesignError(
            f"the columns of {names} take {_gigabytes(held)} for {rows:,} rows, more than the "
            f'{_gigabytes(limit)} of memory there are: use C(..., Treatment), or keep="reread"'
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
