"""The matrices of Winograd's minimal filtering, and vector code that multiplies by one.

``y = A^T [(G g G^T) * (B^T d B)] A`` gives m x m outputs of a 3x3 correlation from (m + 2)^2 products instead
of 9 m^2 (Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2015). The matrices are those of Toom and Cook for a set of points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.compile.schedules.ir import (
    Expr,
    Stmt,
    allocate,
    broadcast,
    const_like,
    lanes_at,
    load,
    store,
)

__all__ = [
    "FILTER",
    "Filtering",
    "Matrix",
    "combine",
    "filtering",
    "integer_filtering",
    "keeper",
    "transform_filters",
    "transform_integer_filters",
]

Matrix = tuple[tuple[Fraction, ...], ...]

# Rows and columns of the filter.
FILTER = 3

# Beside infinity. Of the pairs +-a, +-b tried for m = 4, 2/3 and 3/2 round least: the largest error against
# float64 is a quarter of that of the customary 1 and 2, and half as much again as a direct sum's.
_POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(2, 3), Fraction(-2, 3), Fraction(3, 2), Fraction(-3, 2)),
}

# Of integers: what makes integers of the filters' matrix.
_INTEGER_SCALE = {2: 2}


@dataclass(frozen=True, kw_only=True)
class Filtering:
    """F(m, 3) with n = m + 2: ``inverse`` A^T (m x n), ``filters`` G (n x 3), ``data`` B^T (n x n).

    ``scale``: what outputs along one axis come multiplied by.
    """

    outputs: int
    inverse: Matrix
    filters: Matrix
    data: Matrix
    scale: int = 1

    @property
    def inputs(self) -> int:
        """n: inputs of one tile along one axis, and products."""
        return self.outputs + FILTER - 1


def _product(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients of the product of (x - root), lowest power first."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        scaled = [*(root * c for c in coefficients), Fraction(0)]
        coefficients = [a - b for a, b in zip(shifted, scaled, strict=True)]
    return coefficients


@cache
def filtering(outputs: int) -> Filtering:
    """The matrices of F(``outputs``, 3); raises KeyError for a size without points."""
    points = _POINTS[outputs]
    size = outputs + FILTER - 1
    inverse, filters, data = [], [], []
    for row in range(outputs):
        inverse.append((*(p**row for p in points), Fraction(int(row == outputs - 1))))
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        filters.append(tuple(p**k / scale for k in range(FILTER)))
        data.append((*_product(others), Fraction(0)))
    filters.append((*[Fraction(0)] * (FILTER - 1), Fraction(1)))
    data.append(tuple(_product(points)))
    assert len(data) == size
    return Filtering(outputs=outputs, inverse=tuple(inverse), filters=tuple(filters), data=tuple(data))


@cache
def integer_filtering(outputs: int) -> Filtering:
    """The matrices of F(``outputs``, 3) in integers, with outputs ``scale`` times as large."""
    matrices, scale = filtering(outputs), _INTEGER_SCALE[outputs]
    scaled = tuple(tuple(scale * value for value in row) for row in matrices.filters)
    assert all(value.denominator == 1 for row in (*scaled, *matrices.data) for value in row)
    return replace(matrices, filters=scaled, scale=scale)


def transform_filters(filters: npt.NDArray[np.float32], outputs: int) -> npt.NDArray[np.float32]:
    """OHWI filters ``[O, 3, 3, I]`` in the domain of the products, ``[n, n, I, O]``; computed in float64."""
    g = np.array(filtering(outputs).filters, np.float64)
    transformed = np.einsum("pr,orsi,qs->pqio", g, filters.astype(np.float64), g, optimize=True)
    return np.asarray(transformed, np.float32)


def transform_integer_filters(filters: npt.NDArray[Any], outputs: int) -> npt.NDArray[np.int64]:
    """OHWI filters ``[O, 3, 3, I]`` of integers in the domain of the products, ``[n, n, I, O]``; exact."""
    g = np.array(integer_filtering(outputs).filters, np.int64)
    along = np.einsum("pr,orsi->psio", g, filters.astype(np.int64))
    return np.asarray(np.einsum("psio,qs->pqio", along, g), np.int64)


def combine(matrix: Matrix, values: Sequence[Expr], keep: Callable[[Expr], Expr]) -> list[Expr]:
    """``matrix @ values`` for vectors; ``keep`` puts an intermediate result into a register.

    Points come in pairs +-a. Columns of a pair that differ in signs only take the sum and the difference of
    their values; rows of a pair share their even and odd parts.
    """
    columns, inputs = [list(column) for column in zip(*matrix, strict=True)], list(values)
    for first, second in _pairs(columns):
        a, b = columns[first], columns[second]
        x, y = inputs[first], inputs[second]
        inputs[first], inputs[second] = keep(x + y), keep(x - y)
        columns[first] = [u if u == v else Fraction(0) for u, v in zip(a, b, strict=True)]
        columns[second] = [u if u != v else Fraction(0) for u, v in zip(a, b, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    results: list[Expr | None] = [None] * len(rows)
    for first, second in _pairs(rows):
        a, b = rows[first], rows[second]
        even = [u if u == v else Fraction(0) for u, v in zip(a, b, strict=True)]
        odd = [u if u != v else Fraction(0) for u, v in zip(a, b, strict=True)]
        factor = next(c for c in reversed(odd) if c)
        shared = keep(_sum([c / factor for c in odd], inputs))
        term = shared if factor == 1 else shared * _like(factor, shared)
        base = keep(_sum(even, inputs))
        results[first], results[second] = keep(base + term), keep(base - term)
    return [
        keep(_sum(row, inputs)) if result is None else result
        for row, result in zip(rows, results, strict=True)
    ]


def _pairs(lines: Sequence[Sequence[Fraction]]) -> list[tuple[int, int]]:
    """Lines that are equal but for some signs, not for all."""
    pairs: list[tuple[int, int]] = []
    for first, a in enumerate(lines):
        for second in range(first + 1, len(lines)):
            b = lines[second]
            same = [u == v for u, v in zip(a, b, strict=True) if u or v]
            mirrored = all(abs(u) == abs(v) for u, v in zip(a, b, strict=True))
            free = all(first not in pair and second not in pair for pair in pairs)
            if mirrored and free and any(same) and not all(same):
                pairs.append((first, second))
    return pairs


def _sum(coefficients: Sequence[Fraction], values: Sequence[Expr]) -> Expr:
    """The weighted sum, terms without a multiplication first."""
    terms = [(c, v) for c, v in zip(coefficients, values, strict=True) if c]
    terms.sort(key=lambda term: (term[0] != 1, term[0] != -1))
    factor, total = terms[0]
    if factor != 1:
        total = total * _like(factor, total)
    for factor, value in terms[1:]:
        if factor in (1, -1):
            total = total + value if factor == 1 else total - value
        else:
            total = total + value * _like(factor, value)
    return total


def _like(factor: Fraction, vector: Expr) -> Expr:
    """A constant in every lane, of the type of ``vector``."""
    dtype, _, lanes = str(vector.ty.dtype).partition("x")
    number = float(factor) if dtype == "float32" else int(factor)
    return broadcast(const_like(number, dtype), int(lanes or 1))


def keeper(lanes: int, statements: list[Stmt]) -> Callable[[Expr], Expr]:
    """Puts vectors into registers: appends the stores to ``statements``, gives the loads."""

    def keep(value: Expr) -> Expr:
        dtype = str(value.ty.dtype).partition("x")[0]
        register, declaration = allocate([lanes], dtype, "register", "local")
        at = lanes_at(0, lanes)
        statements.append(declaration)
        statements.append(store(register, value, at))
        return load(register, at)

    return keep
