"""Matrix products of one left operand as one product: q, k and v of attention, side by side.

The left operand is read once for all of them, and the kernels are fewer. A part is taken out where its last
axis is split into heads: whole heads of the joint result, which attention reads in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of, is_half, stored_array
from assay.compile.passes.graph import Graph, is_call, static_shape

__all__ = ["join_projections"]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Columns of a wide value that are split into ``heads`` of ``depth``: ``var = reshape(columns)``."""

    var: Any
    source: Any
    start: int
    heads: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class _Projection:
    """``result = x @ weight + bias``, whose every use splits its columns into heads of ``depth``."""

    x: Any
    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any] | None
    parts: tuple[_Part, ...]

    @property
    def columns(self) -> int:
        return int(self.weight.shape[1])


@dataclass(kw_only=True)
class _Wide:
    """A value of several heads side by side, and its view ``[..., heads, depth]`` once it is there."""

    projections: tuple[_Projection, ...] = ()
    source: Any = None
    view: Any = None
    parts: list[_Part] = field(default_factory=list)


def join_projections(module: Any) -> Any:
    """``module`` with the products that share a left operand joined, and their parts taken by whole heads."""
    main = module["main"]
    joiner = _Joiner(module, _wide_values(Graph(main)))
    joiner.builder_.update_func(module.get_global_var("main"), joiner.visit_expr(main))
    module = relax.transform.CanonicalizeBindings()(joiner.builder_.get())
    return relax.transform.DeadCodeElimination()(module)


def _wide_values(graph: Graph) -> list[_Wide]:
    """Groups of projections to join, and values that are taken apart into heads already."""
    by_operand: dict[tuple[Any, int, Any], list[_Projection]] = {}
    slices: dict[Any, _Wide] = {}
    for var, value in graph.values.items():
        if is_call(value, "matmul"):
            projection = _projection(graph, var, value)
            if projection is not None:
                key = (projection.x, projection.parts[0].depth, projection.weight.dtype)
                by_operand.setdefault(key, []).append(projection)
        elif is_call(value, "reshape"):
            part = _sliced_part(graph, var, value)
            if part is not None:
                slices.setdefault(part.source, _Wide(source=part.source)).parts.append(part)
    joined = []
    for group in by_operand.values():
        if len(group) < 2:
            continue
        wide, start = _Wide(projections=tuple(group)), 0
        for projection in group:
            wide.parts += [_moved(part, start) for part in projection.parts]
            start += projection.columns
        joined.append(wide)
    return [*joined, *slices.values()]


def _moved(part: _Part, start: int) -> _Part:
    return _Part(var=part.var, source=None, start=part.start + start, heads=part.heads, depth=part.depth)


def _projection(graph: Graph, var: Any, call: Any) -> _Projection | None:
    x, weight = call.args[0], stored_array(graph.value(call.args[1]))
    if weight is None or weight.ndim != 2 or not isinstance(x, relax.Var):
        return None
    if weight.dtype != np.float32 and not is_half(weight):
        return None
    result, bias = var, None
    user = graph.only_user(var)
    if user is not None and is_call(graph.values[user], "add"):
        for array in (array_of(arg) for arg in graph.values[user].args):
            if array is not None and array.shape == (weight.shape[1],):
                result, bias = user, array
    users = graph.users(result)
    parts = [_split_into_heads(user, graph.values[user], result, 0, weight.shape[1]) for user in users]
    if not parts or graph.is_output(result) or any(part is None for part in parts):
        return None
    known = tuple(part for part in parts if part is not None)
    if len({part.depth for part in known}) != 1 or weight.shape[1] % known[0].depth:
        return None
    return _Projection(x=x, weight=weight, bias=bias, parts=known)


def _split_into_heads(var: Any, value: Any, source: Any, start: int, columns: int) -> _Part | None:
    """``var`` as heads of ``source``, where it only splits ``columns`` from ``start`` in its last axis."""
    if not is_call(value, "reshape"):
        return None
    before, after = static_shape(value.args[0]), static_shape(value)
    if before is None or after is None or len(after) != len(before) + 1:
        return None
    heads, depth = after[-2:]
    if heads is None or depth is None or heads * depth != columns or start % depth:
        return None
    if not all(a is None or a == b for a, b in zip(after[:-2], before[:-1], strict=True)):
        return None
    return _Part(var=var, source=source, start=start, heads=heads, depth=depth)


def _sliced_part(graph: Graph, var: Any, reshape: Any) -> _Part | None:
    """A reshape of some columns of a wider value: of an output of split, or of a slice."""
    value = graph.value(reshape.args[0])
    if isinstance(value, relax.TupleGetItem):
        split = graph.value(value.tuple_value)
        if not is_call(split, "split"):
            return None
        source, axis = split.args[0], int(split.attrs.axis)
        shape = static_shape(source)
        if shape is None or axis % len(shape) != len(shape) - 1:
            return None
        sizes = [int(field.shape[-1]) for field in split.ty.fields]
        start, columns = sum(sizes[: int(value.index)]), sizes[int(value.index)]
    else:
        return None
    part = _split_into_heads(var, reshape, source, start, columns)
    whole = static_shape(source)
    return part if part and whole and whole[-1] is not None and whole[-1] % part.depth == 0 else None


@mutator
class _Joiner(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, wide: list[_Wide]) -> None:
        super().__init__(module)
        self.parts = {part.var: (value, part) for value in wide for part in value.parts}

    def visit_var_binding_(self, binding: Any) -> None:
        known = self.parts.get(binding.var)
        if known is None:
            super().visit_var_binding_(binding)
            return
        wide, part = known
        if wide.view is None:
            wide.view = self._view(wide, part)
        axis = wide.view.ty.ndim - 2
        first = part.start // part.depth
        heads = relax.op.strided_slice(wide.view, [axis], [first], [first + part.heads])
        emit = self.builder_.emit if isinstance(binding.var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(binding.var, emit(heads, binding.var.name))

    def _view(self, wide: _Wide, part: _Part) -> Any:
        """The joint value as ``[..., heads, depth]``."""
        if wide.projections:
            x = self.visit_expr(wide.projections[0].x)
            weight = relax.const(np.concatenate([p.weight for p in wide.projections], 1))
            if is_half(wide.projections[0].weight):
                weight = self.builder_.emit(relax.op.astype(weight, "float32"))
            value = self.builder_.emit(relax.op.matmul(x, weight))
            if any(p.bias is not None for p in wide.projections):
                biases = [
                    np.zeros(p.columns, np.float32) if p.bias is None else p.bias for p in wide.projections
                ]
                value = self.builder_.emit(relax.op.add(value, relax.const(np.concatenate(biases))))
        else:
            value = self.visit_expr(wide.source)
        shape = list(value.ty.shape)
        heads = int(shape[-1]) // part.depth
        return self.builder_.emit(relax.op.reshape(value, [*shape[:-1], heads, part.depth]))
