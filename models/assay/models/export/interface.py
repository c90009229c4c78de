"""The interface of an ONNX graph: reading it, and binding it to a specification."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.errors import InterfaceError, ModelError
from assay.models.spec import Dim, DType, InputSpec, SymbolicDim

if TYPE_CHECKING:
    import onnx

__all__ = [
    "OutputSpec",
    "bind_inputs",
    "declare_outputs",
    "drop_initializer_inputs",
    "read_inputs",
    "read_outputs",
]

# (default, maximum) of dimensions of which a file says nothing but that they vary.
_BATCH = (1, 64)
_SPATIAL = (224, 1024)
_LENGTH = (128, 2048)
_SPATIAL_MINIMUM = 32
_FIRST_IR_WITHOUT_INITIALIZER_INPUTS = 4


@dataclass(frozen=True, kw_only=True)
class OutputSpec:
    """One output; a dimension is a number, an expression of symbolic dimensions, or "?" where unknown."""

    name: str
    dtype: DType
    shape: tuple[int | str, ...]


def drop_initializer_inputs(model: onnx.ModelProto) -> None:
    """Take initializers out of the inputs, in place; ONNX before IR version 4 lists them in both."""
    model.ir_version = max(model.ir_version, _FIRST_IR_WITHOUT_INITIALIZER_INPUTS)
    graph = model.graph
    initialized = {tensor.name for tensor in graph.initializer}
    for value in [value for value in graph.input if value.name in initialized]:
        graph.input.remove(value)


def read_inputs(graph: onnx.GraphProto) -> tuple[InputSpec, ...]:
    """The inputs of a graph, where dimensions without a size are symbolic, with a default and a range.

    A dimension named in the file keeps its name as far as it is an identifier. A first dimension counts as a
    batch (default 1), the last two of an image as its height and width, any other as a length (default 128).
    Raises ModelError for an input that is no tensor, or of an element type or rank that cannot be bound.
    """
    initialized = {tensor.name for tensor in graph.initializer}
    names = _DimNames()
    inputs = []
    for value in graph.input:
        if value.name in initialized:
            continue
        shape: list[Dim] = []
        dims = _declared_dims(value)
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                shape.append(dim.dim_value)
            else:
                shape.append(names.symbolic(dim.dim_param, value.name, axis, len(dims)))
        inputs.append(InputSpec(name=value.name, dtype=_dtype(value), shape=tuple(shape)))
    return tuple(inputs)


class _DimNames:
    """Symbolic dimensions under construction: one for each name, and a new one for each without."""

    def __init__(self) -> None:
        self._known: dict[str, SymbolicDim] = {}

    def symbolic(self, param: str, input_name: str, axis: int, rank: int) -> SymbolicDim:
        if param in self._known:
            return self._known[param]
        name = _identifier(param or f"{input_name}_dim{axis}")
        taken = {dim.name for dim in self._known.values()}
        while name in taken:
            name += "_"
        default, maximum = _BATCH if axis == 0 else _SPATIAL if rank == 4 and axis >= 2 else _LENGTH
        minimum = _SPATIAL_MINIMUM if (default, maximum) == _SPATIAL else 1
        dim = SymbolicDim(name=name, default=default, minimum=minimum, maximum=maximum)
        self._known[param or f"{input_name} {axis}"] = dim
        return dim


def bind_inputs(graph: onnx.GraphProto, inputs: tuple[InputSpec, ...]) -> None:
    """Give the graph's inputs the shapes of ``inputs``, in place, and rename its dimensions accordingly.

    Raises InterfaceError when names, dtypes, ranks or fixed sizes do not agree.
    """
    values = {value.name: value for value in graph.input}
    if set(values) != {spec.name for spec in inputs}:
        raise InterfaceError(
            f"The graph's inputs are {', '.join(values) or 'none'}; "
            f"the specification has {', '.join(spec.name for spec in inputs) or 'none'}."
        )
    renamed: dict[str, Dim] = {}
    for spec in inputs:
        value = values[spec.name]
        if _dtype(value) is not spec.dtype:
            raise InterfaceError(f"The input {spec.name!r} is {_dtype(value)}, not {spec.dtype}.")
        dims = _declared_dims(value)
        if len(dims) != len(spec.shape):
            raise InterfaceError(
                f"The input {spec.name!r} has {len(dims)} dimensions, not {len(spec.shape)} as specified."
            )
        for axis, (declared, dim) in enumerate(zip(dims, spec.shape, strict=True)):
            if declared.dim_value > 0 and declared.dim_value != dim:
                raise InterfaceError(
                    f"Dimension {axis} of the input {spec.name!r} is {declared.dim_value}, "
                    f"not {dim} as specified."
                )
            if declared.dim_param and renamed.setdefault(declared.dim_param, dim) != dim:
                raise InterfaceError(
                    f"The dimension {declared.dim_param!r} is bound to both "
                    f"{renamed[declared.dim_param]} and {dim}."
                )
            _set_dim(declared, dim)
    _rename_outputs(graph.output, renamed, {dim.name for spec in inputs for dim in _symbolic(spec)})


def _symbolic(spec: InputSpec) -> Iterator[SymbolicDim]:
    return (dim for dim in spec.shape if isinstance(dim, SymbolicDim))


def _rename_outputs(outputs: Iterable[onnx.ValueInfoProto], renamed: dict[str, Dim], known: set[str]) -> None:
    """Carry the new names to the outputs, and forget names there that mean nothing now."""
    for value in outputs:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in renamed:
                _set_dim(dim, renamed[dim.dim_param])
            elif dim.dim_param not in known and not dim.dim_value:
                dim.Clear()


def _set_dim(declared: onnx.TensorShapeProto.Dimension, dim: Dim) -> None:
    declared.Clear()
    if isinstance(dim, SymbolicDim):
        declared.dim_param = dim.name
    else:
        declared.dim_value = dim


def declare_outputs(graph: onnx.GraphProto, inferred: onnx.GraphProto) -> None:
    """Fill dimensions that the graph's outputs leave open from ``inferred``, the graph after inference."""
    known = {dim.dim_param for value in graph.input for dim in _declared_dims(value)} - {""}
    found = {value.name: value.type.tensor_type.shape.dim for value in inferred.output}
    for value in graph.output:
        dims = found.get(value.name, [])
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape") and dims:
            for _ in dims:
                shape.dim.add()
        for declared, dim in zip(shape.dim, dims, strict=False):
            if declared.dim_value or declared.dim_param:
                continue
            if dim.HasField("dim_value"):
                declared.dim_value = dim.dim_value
            elif dim.dim_param in known:
                declared.dim_param = dim.dim_param


def read_outputs(graph: onnx.GraphProto) -> tuple[OutputSpec, ...]:
    """The outputs of a graph; raises ModelError for one that is no tensor of a supported element type."""
    return tuple(
        OutputSpec(
            name=value.name,
            dtype=_dtype(value),
            shape=tuple(
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")
                for dim in value.type.tensor_type.shape.dim
            ),
        )
        for value in graph.output
    )


def _declared_dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise ModelError(f"The input {value.name!r} declares no shape, not even how many dimensions it has.")
    return list(tensor.shape.dim)


def _dtype(value: onnx.ValueInfoProto) -> DType:
    import onnx

    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "of no type"
        raise ModelError(f"{value.name!r} is not a tensor but {kind.removesuffix('_type')}.")
    element = value.type.tensor_type.elem_type
    try:
        return DType(onnx.helper.tensor_dtype_to_np_dtype(element).name)
    except (KeyError, ValueError):
        known = onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(element).lower() if element in known else str(element)
        raise ModelError(f"{value.name!r} has the element type {name}, which is not supported.") from None


def _identifier(name: str) -> str:
    cleaned = re.sub(r"\W", "_", name, flags=re.ASCII)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"d_{cleaned}"
