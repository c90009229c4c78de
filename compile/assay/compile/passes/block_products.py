"""Products and tables of block-quantized weights: joined where they share an operand, and made kernels.

Activations are quantized once for all products that read them. Weights that several calls share, as an
embedding and a tied head do, are packed once and lie in the artifact once.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.passes.constants import array_of
from assay.compile.passes.graph import Graph, is_call
from assay.compile.passes.row_sources import row_source
from assay.compile.schedules.block_format import BlockFormat, BlockWeights, pack_blocks, plan_format
from assay.compile.schedules.block_problem import GATHER, MATMUL, BlockCall, block_call
from assay.compile.schedules.block_quantize import quantize_function
from assay.compile.schedules.block_values import block_gather, block_matmul
from assay.compile.schedules.context import ScheduleContext

__all__ = ["convert_block_products", "join_block_products"]

_OUT_ELEMENTWISE_FUSABLE = 4  # tvm::relax::OpPatternKind
_EVEN = 32
# Elements of a block that are computed where they are quantized, at most: they lie on the stack.
_LONGEST_COMPUTED = 128

Array = npt.NDArray[Any]


def _array(expr: Any) -> Array:
    array = array_of(expr)
    assert array is not None
    return array


# Joining.


def join_block_products(module: Any) -> Any:
    """``module`` with the products of one left operand as one, side by side, and its parts taken out.

    A concatenation of all parts in order is the joint product itself.
    """
    main = module["main"]
    joiner = _Joiner(module, Graph(main))
    joiner.builder_.update_func(module.get_global_var("main"), joiner.visit_expr(main))
    module = relax.transform.CanonicalizeBindings()(joiner.builder_.get())
    return relax.transform.DeadCodeElimination()(module)


class _Joint:
    """Products of one operand; ``value`` once the joint one is there."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.calls: list[tuple[BlockCall, list[Any]]] = []
        self.value: Any = None

    def start(self, position: int) -> int:
        return sum(call.rows for call, _ in self.calls[:position])


def _groups(graph: Graph) -> list[_Joint]:
    found: dict[Any, _Joint] = {}
    for var, value in graph.values.items():
        known = block_call(value, MATMUL)
        if known is None:
            continue
        call, operands = known
        alike = (call.bits, call.block, call.columns, call.accuracy, call.has_zero_points, call.has_bias)
        kinds = tuple(_kind(array) for array in operands[2:])
        joint = found.setdefault((operands[0], alike, kinds), _Joint())
        joint.parts.append(var)
        joint.calls.append(known)
    return [joint for joint in found.values() if len(joint.parts) > 1]


def _kind(operand: Any) -> bool:
    """Whether the numbers fit float16, which decides on how they are stored."""
    values = _array(operand)
    with np.errstate(over="ignore"):
        return bool((values.astype(np.float16).astype(np.float32) == values).all())


@mutator
class _Joiner(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, graph: Graph) -> None:
        super().__init__(module)
        self.graph = graph
        self.places = {var: (joint, i) for joint in _groups(graph) for i, var in enumerate(joint.parts)}

    def visit_var_binding_(self, binding: Any) -> None:
        known = self.places.get(binding.var)
        if known is not None:
            joint, position = known
            value = self._joint(joint)
            start, size = joint.start(position), joint.calls[position][0].rows
            part = relax.op.strided_slice(value, [value.ty.ndim - 1], [start], [start + size])
            self._remap(binding.var, part)
            return
        whole = self._concatenated(binding.value)
        if whole is not None:
            self._remap(binding.var, whole)
            return
        super().visit_var_binding_(binding)

    def _remap(self, var: Any, value: Any) -> None:
        emit = self.builder_.emit if isinstance(var, relax.DataflowVar) else self.builder_.emit_output
        self.set_var_remap(var, emit(value, var.name))

    def _concatenated(self, value: Any) -> Any | None:
        """The joint value behind a concatenation of all its parts."""
        if not is_call(value, "concat"):
            return None
        operands = self.graph.value(value.args[0])
        fields = list(operands.fields) if isinstance(operands, relax.Tuple) else []
        places = [self.places.get(field) for field in fields]
        first = places[0] if places else None
        if first is None:
            return None
        joint = first[0]
        axis = int(value.attrs.axis) % joint.value.ty.ndim if joint.value is not None else -1
        whole = [(joint, i) for i in range(len(joint.parts))]
        return joint.value if places == whole and axis == joint.value.ty.ndim - 1 else None

    def _joint(self, joint: _Joint) -> Any:
        if joint.value is None:
            first = joint.calls[0][0]
            x = self.visit_expr(joint.calls[0][1][0])
            columns = zip(*(operands[1:] for _, operands in joint.calls), strict=True)
            constants = [np.concatenate([_array(each) for each in column]) for column in columns]
            rows = sum(call.rows for call, _ in joint.calls)
            joint.value = self.builder_.emit(_matmul(first.with_rows(rows), x, constants))
        return joint.value


def _matmul(call: BlockCall, x: Any, constants: list[Array]) -> Any:
    shape = [*list(x.ty.shape)[:-1], call.rows]
    return relax.call_dps_packed(
        MATMUL + call.to_text(),
        [x, *map(relax.const, constants)],
        out_ty=relax.TensorType(shape, "float32"),
    )


# Kernels.


def _weights(call: BlockCall, operands: list[Any]) -> BlockWeights:
    """The weights of a call, a block that is longer than a column no longer than needed."""
    codes, scales = _array(operands[1]), _array(operands[2])
    flat = codes.reshape(call.rows, -1)
    if call.bits == 4:
        flat = np.stack([flat & 15, flat >> 4], -1).reshape(call.rows, -1)
    return BlockWeights(
        bits=call.bits,
        block=min(call.block, -(-call.columns // _EVEN) * _EVEN),
        codes=np.ascontiguousarray(flat[:, : call.columns]),
        scales=scales,
        zero_points=_array(operands[3]) if call.has_zero_points else None,
    )


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, context: ScheduleContext) -> None:
        super().__init__(module)
        self.context = context
        self.packed: dict[bytes, tuple[BlockFormat, Any]] = {}
        # Per block of bindings: quantized activations by operand and block size.
        self.quantized: dict[tuple[Any, int], Any] = {}
        self.graph = Graph(module["main"])

    def visit_dataflow_block_(self, block: Any) -> Any:
        self.quantized = {}
        return super().visit_dataflow_block_(block)

    def visit_call_(self, call: Any) -> Any:
        given = block_call(call, MATMUL)
        call = super().visit_call_(call)
        product = block_call(call, MATMUL)
        if given is not None and product is not None:
            return self._product(*product, given[1][0])
        table = block_call(call, GATHER)
        return call if table is None else self._rows(*table)

    def _pack(self, call: BlockCall, operands: list[Any]) -> tuple[BlockFormat, Any]:
        """The layout and the packed constant; the same one for the same weights."""
        digest = hashlib.sha256(repr((call.bits, call.block, call.rows, call.columns)).encode())
        for operand in operands[1 : 4 if call.has_zero_points else 3]:
            digest.update(np.ascontiguousarray(_array(operand)).data)
        key = digest.digest()
        if key not in self.packed:
            weights = _weights(call, operands)
            form = plan_format(weights, self.context.unit.lanes())
            self.packed[key] = form, relax.const(pack_blocks(weights, form))
        return self.packed[key]

    def _product(self, call: BlockCall, operands: list[Any], given: Any) -> Any:
        """The product; ``given`` is its first operand in the graph before."""
        if call.integer:
            form, packed = self._pack(call, operands)
            x = self._quantize(operands[0], given, form)
            value = self._call(block_matmul, x, packed, form=form, pattern=_OUT_ELEMENTWISE_FUSABLE)
        else:
            real = np.ascontiguousarray(_weights(call, operands).dequantized().T)
            value = relax.op.matmul(operands[0], relax.const(real))
        if not call.has_bias:
            return value
        return relax.op.add(self.builder_.emit(value), operands[-1])

    def _quantize(self, x: Any, given: Any, form: BlockFormat) -> Any:
        """``x`` as 8-bit integers; computed there too where nothing but products reads it."""
        key = (x, form.block)
        if key not in self.quantized:
            shape = list(x.ty.shape)
            known = row_source(self.graph, given) if form.block <= _LONGEST_COMPUTED else None
            source, tensors, name = known or (None, [x], "")
            operands = [self.visit_expr(tensor) for tensor in tensors] if known else tensors
            kernel = quantize_function(form.activations, shape, self.context, source)
            variable = self.builder_.add_func(kernel, f"{name}block_quantize")
            kind = relax.TensorType([*shape[:-1], form.activations.row_bytes], "int8")
            self.quantized[key] = self.builder_.emit(relax.call_tir(variable, operands, out_ty=kind))
        return self.quantized[key]

    def _rows(self, call: BlockCall, operands: list[Any]) -> Any:
        form, packed = self._pack(call, operands)
        return self._call(block_gather, packed, operands[0], form=form)

    def _call(self, function: Any, *tensors: Any, form: BlockFormat, pattern: int | None = None) -> Any:
        return self.builder_.call_te(
            lambda *args: function(*args, form=form),
            *tensors,
            primfunc_name_hint=function.__name__,
            primfunc_attrs=None if pattern is None else {"op_pattern": pattern},
        )


def convert_block_products(module: Any, context: ScheduleContext) -> Any:
    """``module`` with kernels in place of the calls that MatMulNBits and GatherBlockQuantized became."""
    converter = _Converter(module, context)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return relax.transform.DeadCodeElimination()(converter.builder_.get())
