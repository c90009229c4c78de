"""Operators that have kernels of their own on the CPU, in forms for devices.

Recurrent operators over a constant number of steps become operators for each step, products with
block-quantized weights and tables one tensor expression that reads the codes, with the norm before and the
gate behind a product in it, and attention over a paged cache a kernel of ``device_schedules``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from assay.compile.device_schedules.paged_attention import device_paged_attention
from assay.compile.device_schedules.quantized_weights import (
    PANEL,
    RowNormTerms,
    block_product,
    block_rows,
    word_weights,
)
from assay.compile.passes.constants import array_of
from assay.compile.passes.graph import Graph, is_call
from assay.compile.passes.paged_cache import PREFIX as PAGED_ATTENTION
from assay.compile.passes.recurrences import PREFIX as RECURRENCE
from assay.compile.passes.row_sources import norm_of_products, product_before_gate
from assay.compile.schedules.block_problem import GATHER, MATMUL, BlockCall
from assay.compile.schedules.ir import as_int
from assay.compile.schedules.paged_problem import PagedProblem
from assay.compile.schedules.recurrence import Cell, Recurrence
from assay.errors import UnsupportedOperatorError

__all__ = ["convert_for_devices"]

_INJECTIVE, _OUT_ELEMENTWISE_FUSABLE, _OPAQUE = 2, 4, 8  # tvm::relax::OpPatternKind
# Steps of a recurrence: the code grows with them.
_MOST_STEPS = 64


def convert_for_devices(module: Any, most_buffers: int | None = None) -> Any:
    """``module`` without the calls that stand for kernels of the CPU.

    ``most_buffers``: that a kernel may take; None for any number.
    Raises UnsupportedOperatorError for a recurrence over a symbolic or a large number of steps.
    """
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            _check_steps(binding)
    converter = _Converter(module, most_buffers)
    main = module.get_global_var("main")
    converter.builder_.update_func(main, converter.visit_expr(module["main"]))
    return converter.builder_.get()


def _check_steps(binding: Any) -> None:
    """Raise for a recurrence that is too long; inside of a visitor, TVM would make another error of it."""
    value: Any = getattr(binding, "value", None)
    if not isinstance(value, tvm.ir.Call) or getattr(value.op, "name", "") != "relax.call_dps_packed":
        return
    name = str(getattr(value.args[0], "global_symbol", ""))
    if not name.startswith(RECURRENCE):
        return
    steps = as_int(value.args[1].fields[0].ty.shape[0])
    if steps is None or steps > _MOST_STEPS:
        cell = Recurrence.from_text(name.removeprefix(RECURRENCE)).cell
        count = "a symbolic number of" if steps is None else f"{steps}"
        raise UnsupportedOperatorError(
            f"The operator {cell} over {count} steps has a kernel for CPUs only.",
            hint=f"Give its first dimension a fixed size of at most {_MOST_STEPS}.",
        )


def _digest(array: npt.NDArray[Any]) -> str:
    """What tells an array from others: its dtype, its shape and its bytes."""
    bytes_of = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data).hexdigest()
    return f"{array.dtype} {array.shape} {bytes_of}"


@mutator
class _Converter(PyExprMutator):  # type: ignore[misc]
    def __init__(self, module: Any, most_buffers: int | None) -> None:
        super().__init__(module)
        self.graph = Graph(module["main"])
        self.most_buffers = most_buffers
        self.kernels: dict[PagedProblem, Any] = {}
        # The value that holds the memory of an operand after the calls so far.
        self.latest: dict[Any, Any] = {}
        # Operands of weights by what is in them.
        self.constants: dict[str, Any] = {}

    def visit_call_(self, call: Any) -> Any:
        given = call
        call = super().visit_call_(call)
        if is_call(given, "multiply"):
            gated = self._gated_product(given)
            return call if gated is None else gated
        if not isinstance(call.op, tvm.ir.Op) or call.op.name != "relax.call_dps_packed":
            return call
        name = str(call.args[0].global_symbol) if isinstance(call.args[0], relax.ExternFunc) else ""
        operands = list(call.args[1].fields)
        if name.startswith(MATMUL):
            left = given.args[1].fields[0]
            return self._product(name.removeprefix(MATMUL), left, operands)
        converters: dict[str, Callable[[str, Any, list[Any]], Any]] = {
            RECURRENCE: self._recurrence,
            GATHER: self._table,
            PAGED_ATTENTION: self._attention,
        }
        for prefix, convert in converters.items():
            if name.startswith(prefix):
                return convert(name.removeprefix(prefix), call, operands)
        return call

    # Block-quantized weights.

    def _gated_product(self, call: Any) -> Any | None:
        """A product and the gate of its halves that ``call``, of the module that is converted, is."""
        given = product_before_gate(self.graph, call)
        if given is None:
            return None
        operands = list(given.args[1].fields)
        text = str(given.args[0].global_symbol).removeprefix(MATMUL)
        known = BlockCall.from_text(text)
        if known.has_bias or known.rows % (2 * PANEL):
            return None
        return self._product(text, operands[0], [self.visit_expr(each) for each in operands], gated=True)

    def _product(self, text: str, left: Any, operands: list[Any], *, gated: bool = False) -> Any:
        """``left``: the first operand as it was in the module that is converted."""
        known = BlockCall.from_text(text)
        # TVM would take the first sum for the last word on what may follow.
        pattern = {"op_pattern": _OPAQUE if gated else _OUT_ELEMENTWISE_FUSABLE}
        name = "gated_block_matmul" if gated else "block_matmul"
        rest = [*self._weights(known, operands), *operands[1 + known.weight_operands :]]
        norm = norm_of_products(self.graph, left)
        if norm is None:
            return self.builder_.call_te(
                lambda *tensors: block_product(known, *tensors, gated=gated),
                operands[0],
                *rest,
                primfunc_name_hint=name,
                primfunc_attrs=pattern,
            )
        epsilon, normed = norm

        def product(x: Any, gain: Any, *tensors: Any) -> Any:
            terms = RowNormTerms(epsilon=epsilon, gain=gain)
            return block_product(known, x, *tensors, norm=terms, gated=gated)

        return self.builder_.call_te(
            product,
            *map(self.visit_expr, normed),
            *rest,
            primfunc_name_hint=f"norm_{name}",
            primfunc_attrs=pattern,
        )

    def _table(self, text: str, call: Any, operands: list[Any]) -> Any:
        known = BlockCall.from_text(text)
        return self.builder_.call_te(
            lambda *tensors: block_rows(known, *tensors),
            operands[0],
            *self._weights(known, operands),
            primfunc_name_hint="block_gather",
            # What depends on data is opaque to TVM.
            primfunc_attrs={"op_pattern": _INJECTIVE},
        )

    def _weights(self, call: BlockCall, operands: list[Any]) -> list[Any]:
        """Numbers, or codes, scales and zero points, as they lie on devices; converters make them constants.

        A table that is the weight of a product too is one constant.
        """
        arrays = [array_of(each) for each in operands[1 : 1 + call.weight_operands]]
        made = word_weights(call, *arrays)  # type: ignore[arg-type]
        return [self.constants.setdefault(_digest(each), relax.const(each)) for each in made]

    # The paged cache.

    def _attention(self, text: str, call: Any, operands: list[Any]) -> Any:
        problem, place = PagedProblem.from_text(text)
        written = operands[-2:] if problem.quantized else operands[-1:]
        first = len(operands) - len(written)
        current = [self.latest.get(each, each) for each in written]
        numbers = relax.const(np.array(place.numbers(), np.int32))
        places = [first + 1 + i for i in range(len(written))]
        if problem not in self.kernels:
            kernel = device_paged_attention(problem, self.most_buffers)
            self.kernels[problem] = self.builder_.add_func(kernel, "paged_attention")
        types = [call.ty, *(each.ty for each in written)]
        arguments = [*operands[:first], numbers, *current]
        result = self.builder_.emit(
            relax.op.call_tir_inplace(self.kernels[problem], arguments, [-1, *places], types)
        )
        for i, each in enumerate(written):
            self.latest[each] = self.builder_.emit(relax.TupleGetItem(result, i + 1))
        return relax.TupleGetItem(result, 0)

    # Recurrences.

    def _recurrence(self, text: str, call: Any, operands: list[Any]) -> Any:
        recurrence = Recurrence.from_text(text)
        x, *constants = operands[:4]
        steps = as_int(x.ty.shape[0])
        assert steps is not None
        weights, recurrent, bias = (array_of(constant) for constant in constants)
        states = operands[4:]
        lengths = states.pop(0) if recurrence.has_lengths else None
        hidden = states.pop(0) if recurrence.has_hidden else None
        cell = states.pop(0) if recurrence.has_cell else None
        emit = _Steps(self.builder_, recurrence, x, steps, lengths)
        outputs, lasts, cells = [], [], []
        for direction, reverse in enumerate(recurrence.reverse):
            emit.start(weights[direction], recurrent[direction], bias[direction], hidden, cell, direction)  # type: ignore[index]
            order = reversed(range(steps)) if reverse else range(steps)
            rows = {step: emit.step(step) for step in order}
            outputs.append(emit.stacked([rows[step] for step in range(steps)]))
            lasts.append(emit.hidden)
            cells.append(emit.cell)
        results = [emit.stacked(outputs, 1), emit.stacked(lasts)]
        results += [emit.stacked(cells)] if recurrence.cell is Cell.LSTM else []
        return relax.Tuple(results)


class _Steps:
    """Emits the steps of one direction of a recurrence; ``hidden`` and ``cell`` [B, H] are the state."""

    def __init__(self, builder: Any, recurrence: Recurrence, x: Any, steps: int, lengths: Any) -> None:
        self.builder, self.r, self.x, self.steps, self.lengths = builder, recurrence, x, steps, lengths
        self.batch = x.ty.shape[1]
        self.hidden: Any = None
        self.cell: Any = None

    def _do(self, expr: Any) -> Any:
        return self.builder.emit(expr)

    def stacked(self, values: list[Any], axis: int = 0) -> Any:
        """Values side by side along a new axis."""
        parts = [self._do(relax.op.expand_dims(value, axis)) for value in values]
        return parts[0] if len(parts) == 1 else self._do(relax.op.concat(parts, axis))

    def start(self, weights: Any, recurrent: Any, bias: Any, hidden: Any, cell: Any, direction: int) -> None:
        """Begin a direction: W [G * H, I], R [G * H, H], B [2 * G * H]; states [D, B, H] or None."""
        own, theirs = np.split(bias, 2)
        self.recurrent = np.ascontiguousarray(recurrent.T)
        self.recurrent_bias = theirs
        product = self._do(relax.op.matmul(self.x, relax.const(np.ascontiguousarray(weights.T))))
        self.inputs = self._do(relax.op.add(product, relax.const(own)))
        self.hidden, self.cell = (
            self._zeros() if state is None else self._part(state, direction) for state in (hidden, cell)
        )

    def _zeros(self) -> Any:
        zero = relax.const(0.0, "float32")
        return self._do(relax.op.full([self.batch, self.r.hidden], zero, "float32"))

    def _part(self, value: Any, index: int) -> Any:
        """``value[index]``."""
        part = self._do(relax.op.strided_slice(value, [0], [index], [index + 1]))
        return self._do(relax.op.reshape(part, list(value.ty.shape)[1:]))

    def _gate(self, value: Any, gate: int) -> Any:
        size = self.r.hidden
        return self._do(relax.op.strided_slice(value, [1], [gate * size], [(gate + 1) * size]))

    def _activated(self, value: Any, which: int) -> Any:
        known = {"Sigmoid": relax.op.sigmoid, "Tanh": relax.op.tanh, "Relu": relax.op.nn.relu}
        return self._do(known[self.r.activations[which]](value))

    def _state_product(self, state: Any, columns: slice = slice(None)) -> Any:
        weights = np.ascontiguousarray(self.recurrent[:, columns])
        product = self._do(relax.op.matmul(state, relax.const(weights)))
        return self._do(relax.op.add(product, relax.const(self.recurrent_bias[columns])))

    def step(self, step: int) -> Any:
        """The output [B, H] of one step, after which the state is that of this step."""
        inputs = self._part(self.inputs, step)
        made = {Cell.LSTM: self._lstm, Cell.GRU: self._gru, Cell.RNN: self._rnn}[self.r.cell](inputs)
        hidden, cell = made
        if self.lengths is None:
            self.hidden, self.cell = hidden, cell
            return hidden
        lengths = self._do(relax.op.reshape(self.lengths, [self.batch, 1]))
        runs = self._do(relax.op.greater(lengths, relax.const(step, "int32")))
        output = self._do(relax.op.where(runs, hidden, relax.const(0.0, "float32")))
        self.hidden = self._do(relax.op.where(runs, hidden, self.hidden))
        self.cell = self._do(relax.op.where(runs, cell, self.cell))
        return output

    def _lstm(self, inputs: Any) -> tuple[Any, Any]:
        gates = self._do(relax.op.add(inputs, self._state_product(self.hidden)))
        first, output, forget = (self._activated(self._gate(gates, i), 0) for i in range(3))
        candidate = self._activated(self._gate(gates, 3), 1)
        kept = self._do(relax.op.multiply(forget, self.cell))
        cell = self._do(relax.op.add(kept, self._do(relax.op.multiply(first, candidate))))
        return self._do(relax.op.multiply(output, self._activated(cell, 2))), cell

    def _gru(self, inputs: Any) -> tuple[Any, Any]:
        size = self.r.hidden
        both = self._state_product(self.hidden, slice(0, 2 * size))
        update, reset = (
            self._activated(self._do(relax.op.add(self._gate(inputs, i), self._gate(both, i))), 0)
            for i in range(2)
        )
        last = slice(2 * size, 3 * size)
        if self.r.linear_before_reset:
            product = self._do(relax.op.multiply(reset, self._state_product(self.hidden, last)))
        else:
            product = self._state_product(self._do(relax.op.multiply(reset, self.hidden)), last)
        candidate = self._activated(self._do(relax.op.add(self._gate(inputs, 2), product)), 1)
        difference = self._do(relax.op.subtract(self.hidden, candidate))
        return self._do(relax.op.add(candidate, self._do(relax.op.multiply(update, difference)))), self.cell

    def _rnn(self, inputs: Any) -> tuple[Any, Any]:
        return self._activated(self._do(relax.op.add(inputs, self._state_product(self.hidden))), 0), self.cell
