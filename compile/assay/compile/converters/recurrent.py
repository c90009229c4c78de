"""LSTM, GRU and RNN, which TVM does not translate: one call that a pass replaces by our kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from assay.compile.passes.constants import array_of
from assay.compile.passes.recurrences import PREFIX
from assay.compile.schedules.recurrence import Cell, Recurrence

__all__ = ["convert_gru", "convert_lstm", "convert_rnn"]

_DEFAULTS = {Cell.LSTM: ("Sigmoid", "Tanh", "Tanh"), Cell.GRU: ("Sigmoid", "Tanh"), Cell.RNN: ("Tanh",)}
_REVERSE = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
_KNOWN = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu"}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _refuse_what_is_missing(cell: Cell, inputs: Any, attributes: Mapping[str, Any]) -> None:
    if "clip" in attributes:
        raise ValueError("the attribute clip is not supported")
    if int(attributes.get("input_forget", 0)):
        raise ValueError("the attribute input_forget is not supported")
    if int(attributes.get("layout", 0)):
        raise ValueError("only layout 0, with time as the first axis, is supported")
    if cell is Cell.LSTM and inputs[7] is not None:
        raise ValueError("peepholes (the input P) are not supported")
    for position, name in ((1, "W"), (2, "R"), (3, "B")):
        if inputs[position] is not None and array_of(inputs[position]) is None:
            raise ValueError(f"the input {name} has to be a constant")
    if str(inputs[0].ty.dtype) != "float32":
        raise ValueError("only float32 is supported")


def _activations(cell: Cell, directions: int, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    given = attributes.get("activations")
    if not given:
        return _DEFAULTS[cell]
    names = tuple(_text(name) for name in given)
    known = tuple(_KNOWN.get(name.lower(), "") for name in names)
    if "" in known:
        raise ValueError(f"the activation {names[known.index('')]} is not supported")
    own = known[: len(_DEFAULTS[cell])]
    if known != own * directions:
        raise ValueError("both directions have to have the same activations")
    return own


def _convert(cell: Cell, builder: Any, inputs: Any, attributes: Mapping[str, Any]) -> Any:
    _refuse_what_is_missing(cell, inputs, attributes)
    x, lengths, hidden, first_cell = inputs[0], inputs[4], inputs[5], inputs[6]
    if cell is not Cell.LSTM:
        first_cell = None
    reverse = _REVERSE[_text(attributes.get("direction", "forward"))]
    size = int(inputs[2].ty.shape[2])
    if lengths is not None:
        known = array_of(lengths)
        if known is not None and known.dtype == np.int32 and (known == _constant(x.ty.shape[0])).all():
            lengths = None
    recurrence = Recurrence(
        cell=cell,
        hidden=size,
        reverse=reverse,
        activations=_activations(cell, len(reverse), attributes),
        linear_before_reset=bool(int(attributes.get("linear_before_reset", 0))),
        has_lengths=lengths is not None,
        has_hidden=hidden is not None,
        has_cell=first_cell is not None,
    )
    bias = inputs[3]
    if bias is None:
        bias = relax.const(np.zeros((len(reverse), 2 * recurrence.gates * size), np.float32))
    steps, batch = list(x.ty.shape)[:2]
    state = relax.TensorType([len(reverse), batch, size], "float32")
    types = [relax.TensorType([steps, len(reverse), batch, size], "float32"), state]
    types += [state] if cell is Cell.LSTM else []
    states = [item for item in (lengths, hidden, first_cell) if item is not None]
    call = relax.call_dps_packed(
        PREFIX + recurrence.to_text(), [x, inputs[1], inputs[2], bias, *states], out_ty=types
    )
    return builder.emit(call)


def _constant(extent: Any) -> int:
    return int(getattr(extent, "value", -1))


def convert_lstm(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX LSTM: Y ``[T, D, B, H]``, Y_h and Y_c ``[D, B, H]``. Raises ValueError for what is missing."""
    return _convert(Cell.LSTM, builder, inputs, attributes)


def convert_gru(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX GRU: Y ``[T, D, B, H]`` and Y_h ``[D, B, H]``. Raises ValueError for what is missing."""
    return _convert(Cell.GRU, builder, inputs, attributes)


def convert_rnn(builder: Any, inputs: Any, attributes: Mapping[str, Any], opset: int) -> Any:
    """ONNX RNN: Y ``[T, D, B, H]`` and Y_h ``[D, B, H]``. Raises ValueError for what is missing."""
    return _convert(Cell.RNN, builder, inputs, attributes)
