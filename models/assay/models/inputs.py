"""Arrays to run a model on: representative where its specification says how, seeded in any case."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from assay.errors import InterfaceError
from assay.models.spec import Array, InputSpec, ModelSpec, SymbolicDim

if TYPE_CHECKING:
    import numpy as np

__all__ = ["make_inputs", "verification_sizes"]

# Sizes above this cost more time than they add certainty.
_LARGEST_VERIFIED = 512
# Where each operation costs a hundred times as much: some tiles' rows, and some beside them.
_FEW = 19


def make_inputs(spec: ModelSpec, sizes: Mapping[str, int] | None = None, seed: int = 0) -> dict[str, Array]:
    """Arrays by input name, C-contiguous, of the shapes that ``sizes`` gives (by default the default sizes).

    The same ``spec``, ``sizes`` and ``seed`` give the same numbers. Raises InterfaceError for a size of an
    unknown dimension or outside its range.
    """
    import numpy as np

    full = _complete(spec, sizes or {})
    generator = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
    if spec.representative_inputs is not None:
        arrays = spec.representative_inputs(full, generator)
    else:
        arrays = {item.name: _generic(item, full, generator) for item in spec.inputs}
    return {item.name: np.asarray(arrays[item.name], order="C") for item in spec.inputs}


def verification_sizes(spec: ModelSpec, *, few: bool = False) -> list[dict[str, int]]:
    """Sizes to verify at: defaults, then each symbolic dimension's minimum, an odd size and a large one.

    The dimensions change together in one case each for the minima and the odd sizes, and one by one for the
    large sizes, so that no case is large in every dimension. A model without symbolic dimensions gives [{}].
    With ``few``, for code that is emulated, there are two cases: the minima, and small sizes that are odd.
    """
    dims = spec.symbolic_dims
    if few:
        cases = [
            {name: dim.minimum for name, dim in dims.items()},
            {name: _small_size(dim) for name, dim in dims.items()},
        ]
        return cases[:1] if cases[0] == cases[1] else cases
    cases = [
        spec.default_sizes(),
        {name: dim.minimum for name, dim in dims.items()},
        {name: _odd_size(dim) for name, dim in dims.items()},
    ]
    for name, dim in dims.items():
        large = max(dim.minimum, min(dim.maximum, max(dim.default, _LARGEST_VERIFIED)))
        if dim.default == 1:
            # A batch of hundreds of images would verify nothing that a handful does not.
            large = min(dim.maximum, 4)
        others = {other: max(1, known.minimum) for other, known in dims.items()}
        cases.append({**others, name: large})
    return [case for index, case in enumerate(cases) if case not in cases[:index]]


def _odd_size(dim: SymbolicDim) -> int:
    """A size in range that no tile divides: a prime near the default where there is one."""
    wanted = 3 if dim.default == 1 else dim.default + 1 + dim.default % 2
    for size in range(wanted, dim.maximum + 1):
        if size % 2 and size % 3 and size % 5 and size % 7:
            return size
    return max(dim.minimum, min(dim.maximum, 3))


def _small_size(dim: SymbolicDim) -> int:
    """A prime in range, or what is nearest: 3 where the default is 1, else more than a tile has."""
    return max(dim.minimum, min(dim.maximum, 3 if dim.default == 1 else min(dim.default, _FEW)))


def _complete(spec: ModelSpec, sizes: Mapping[str, int]) -> dict[str, int]:
    dims = spec.symbolic_dims
    for name, size in sizes.items():
        if name not in dims:
            known = ", ".join(dims) or "none"
            raise InterfaceError(f"{spec.name} has no dimension {name!r}; its symbolic dimensions: {known}.")
        if not dims[name].minimum <= size <= dims[name].maximum:
            raise InterfaceError(
                f"The dimension {name!r} of {spec.name} is {dims[name].minimum} to {dims[name].maximum}, "
                f"not {size}."
            )
    return {**spec.default_sizes(), **sizes}


def _generic(spec: InputSpec, sizes: Mapping[str, int], generator: np.random.Generator) -> Array:
    """Normal floats, and integers of 0 and 1, which are valid as ids, masks and flags alike."""
    import numpy as np

    shape = tuple(sizes[dim.name] if isinstance(dim, SymbolicDim) else dim for dim in spec.shape)
    dtype = np.dtype(spec.dtype.value)
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 2, shape).astype(dtype)
