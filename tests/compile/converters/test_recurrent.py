from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.errors import UnsupportedOperatorError

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]
Agree = Callable[..., None]
Run = Callable[..., dict[str, Any]]

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


class Recurrent:
    """A model of one recurrent operator with random weights, and inputs for it."""

    def __init__(
        self, cell: str, *, steps: int = 5, batch: int = 3, width: int = 7, hidden: int = 13,
        direction: str = "forward", states: bool = True, lengths: bool = False, bias: bool = True,
        symbolic: bool = False, **attributes: Any,
    ) -> None:  # fmt: skip
        random = np.random.default_rng(hidden)
        directions, gates = 1 + (direction == "bidirectional"), GATES[cell]
        self.cell, self.hidden, self.direction = cell, hidden, direction
        self.attributes = attributes
        shapes = {"W": (directions, gates * hidden, width), "R": (directions, gates * hidden, hidden)}
        shapes |= {"B": (directions, 2 * gates * hidden)} if bias else {}
        self.weights = {n: random.uniform(-0.6, 0.6, s).astype(np.float32) for n, s in shapes.items()}
        sizes = ("steps", "batch") if symbolic else (steps, batch)
        self.declared: dict[str, Any] = {"x": [*sizes, width]}
        self.inputs: dict[str, Any] = {"x": random.standard_normal((steps, batch, width), dtype=np.float32)}
        if lengths:
            self.declared["lengths"] = ([sizes[1]], "int32")
            self.inputs["lengths"] = random.integers(1, steps + 1, batch).astype(np.int32)
        names = ["h", "c"][: 1 + (cell == "LSTM")] if states else []
        for name in names:
            self.declared[name] = [directions, sizes[1], hidden]
            self.inputs[name] = random.standard_normal((directions, batch, hidden), dtype=np.float32)
        self.outputs = {"y": [sizes[0], directions, sizes[1], hidden], "y_h": [directions, sizes[1], hidden]}
        self.outputs |= {"y_c": self.outputs["y_h"]} if cell == "LSTM" else {}
        self.operands = ["x", "W", "R", "B" if bias else "", "lengths" if lengths else "", *names]

    def model(self, make_model: MakeModel) -> onnx.ModelProto:
        return make_model(
            [
                node(
                    self.cell,
                    self.operands,
                    [*self.outputs],
                    hidden_size=self.hidden,
                    direction=self.direction,
                    **self.attributes,
                )
            ],
            self.declared,
            self.outputs,
            self.weights,
        )


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cell_step(cell: str, x: Any, h: Any, c: Any, w: Any, r: Any, b: Any, before: bool) -> tuple[Any, Any]:
    """One step of one sequence as the ONNX specification writes it, in float64."""
    wb, rb = np.split(b, 2)
    if cell == "RNN":
        return np.tanh(w @ x + wb + r @ h + rb), c
    if cell == "LSTM":
        i, o, f, g = np.split(w @ x + wb + r @ h + rb, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (xz, xr, xh), (hz, hr, hh) = np.split(w @ x + wb, 3), np.split(r @ h + rb, 3)
    z, reset = sigmoid(xz + hz), sigmoid(xr + hr)
    candidate = np.tanh(xh + (reset * hh if before else np.split(r, 3)[2] @ (reset * h) + np.split(rb, 3)[2]))
    return (1 - z) * candidate + z * h, c


def reference(case: Recurrent) -> list[Any]:
    """Every output, one sequence and one step after the other."""
    x = case.inputs["x"].astype(np.float64)
    w, r, b = (case.weights[name].astype(np.float64) for name in "WRB")
    (steps, batch, _), directions = x.shape, len(w)
    lengths = case.inputs.get("lengths", np.full(batch, steps))
    zeros = np.zeros((directions, batch, case.hidden))
    h, c = (np.array(case.inputs.get(name, zeros), np.float64) for name in ("h", "c"))
    y = np.zeros((steps, directions, batch, case.hidden))
    before = bool(case.attributes.get("linear_before_reset", 0))
    for d in range(directions):
        for n in range(batch):
            times = range(lengths[n])
            for t in reversed(times) if d or case.direction == "reverse" else times:
                h[d, n], c[d, n] = cell_step(case.cell, x[t, n], h[d, n], c[d, n], w[d], r[d], b[d], before)
                y[t, d, n] = h[d, n]
    return [y, h, c][: len(case.outputs)]


CASES = {
    "lstm": Recurrent("LSTM"),
    "lstm, both ways, of different lengths": Recurrent("LSTM", direction="bidirectional", lengths=True),
    "lstm, reverse, one step": Recurrent("LSTM", direction="reverse", steps=1, batch=1, hidden=8),
    "gru": Recurrent("GRU", hidden=21, batch=1),
    "gru, reverse, of different lengths": Recurrent("GRU", direction="reverse", lengths=True),
    "gru, linear before reset, both ways": Recurrent(
        "GRU", direction="bidirectional", linear_before_reset=1, lengths=True, states=False
    ),
    "rnn": Recurrent("RNN", hidden=35, batch=5, states=False),
    "rnn, both ways": Recurrent("RNN", direction="bidirectional", hidden=3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_against_numpy(make_model: MakeModel, run_compiled: Run, case: Recurrent) -> None:
    outputs = run_compiled(case.model(make_model), case.inputs)
    for got, wanted in zip(outputs.values(), reference(case), strict=True):
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_against_onnx_runtime_at_other_sizes(make_model: MakeModel, agree: Agree, cell: str) -> None:
    case = Recurrent(cell, steps=9, batch=6, symbolic=True, bias=False, direction="bidirectional")
    agree(case.model(make_model), case.inputs)


def test_other_activations(make_model: MakeModel, agree: Agree) -> None:
    case = Recurrent("LSTM", activations=["Sigmoid", "Relu", "Tanh"])
    agree(case.model(make_model), case.inputs)
    case = Recurrent("RNN", direction="bidirectional", activations=["Relu", "Relu"])
    agree(case.model(make_model), case.inputs)


def test_wide_layer_shares_a_step_between_threads(make_model: MakeModel, agree: Agree) -> None:
    for cell in ("LSTM", "GRU"):
        case = Recurrent(cell, hidden=200, batch=3, steps=3, direction="bidirectional")
        agree(case.model(make_model), case.inputs)


def test_vectors_of_other_lengths(tvm: Any) -> None:
    """Packed for any vector, every weight stands once in the panels and the rest is zeros."""
    from assay.compile.passes.recurrences import _projection, _recurrent_weights
    from assay.compile.schedules.recurrence import Cell, Recurrence, UnitLayout

    for cell in Cell:
        recurrence = Recurrence(cell=cell, hidden=13, reverse=(False, True), activations=())
        rows = recurrence.gates * 13
        recurrent = np.arange(1, 2 * rows * 13 + 1, dtype=np.float32).reshape(2, rows, 13)
        inputs = np.arange(1, 2 * rows * 3 + 1, dtype=np.float32).reshape(2, rows, 3)
        for lanes in (4, 8, 16):
            layout = UnitLayout.of(recurrence, lanes)
            packed = _recurrent_weights(recurrence, layout, recurrent)
            kept = np.sort(np.concatenate([p[p != 0] for p in packed]))
            np.testing.assert_array_equal(kept, np.sort(recurrent.ravel()))
            columns, _ = _projection(recurrence, layout, inputs, np.zeros((2, 2 * rows), np.float32))
            np.testing.assert_array_equal(np.sort(columns[columns != 0]), np.sort(inputs.ravel()))


@pytest.mark.parametrize(
    ("attributes", "peepholes", "reason"),
    [
        ({"clip": 1.0}, False, "clip"),
        ({"input_forget": 1}, False, "input_forget"),
        ({"layout": 1}, False, "layout"),
        ({}, True, "peepholes"),
        ({"activations": ["Softsign", "Tanh", "Tanh"]}, False, "Softsign"),
    ],
)
def test_what_is_missing_is_refused_by_name(
    make_model: MakeModel, run_compiled: Run, attributes: dict[str, Any], peepholes: bool, reason: str
) -> None:
    case = Recurrent("LSTM", lengths=True, **attributes)
    if peepholes:
        case.weights["P"] = np.ones((1, 3 * case.hidden), np.float32)
        case.operands.append("P")
    with pytest.raises(UnsupportedOperatorError, match=f"LSTM.*{reason}"):
        run_compiled(case.model(make_model), case.inputs)
