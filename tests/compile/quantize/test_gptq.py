"""GPTQ against a plain transcription of its definition, and against rounding to nearest on held-out data."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.quantize.apply import quantize
from assay.compile.quantize.gptq import gptq
from assay.compile.quantize.groups import quantize_groups
from assay.compile.quantize.prepare import find_plan
from assay.errors import ModelError, UsageError
from assay.models.decoders.weights import dequantize


def correlated(count: int, columns: int, seed: int) -> Any:
    """Inputs [count, columns] as activations are: a few directions carry most of it."""
    mixing = np.random.default_rng(99).standard_normal((columns // 4, columns))
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((count, columns // 4)) @ mixing
    return (rows + 0.3 * generator.standard_normal((count, columns))).astype(np.float32)


def by_definition(values: Any, hessian: Any, bits: int, group: int) -> Any:
    """Optimal brain quantization in a fixed order: after each column the inverse Hessian loses it.

    The update that GPTQ's Cholesky factor stands for, with the inverse recomputed by elimination. Symmetric
    codes with the scale of each group found on its weights as they are when it is reached.
    """
    from assay.compile.quantize.groups import group_parameters

    left = values.astype(np.float64)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
    inverse = np.linalg.inv(damped)
    codes = np.zeros(values.shape, int)
    for column in range(values.shape[1]):
        if column % group == 0:
            part = left[:, column : column + group].astype(np.float32)
            scales, _ = group_parameters(part, bits=bits, symmetric=True, search=True)
        middle = 2 ** (bits - 1)
        steps = np.rint(left[:, column].astype(np.float32) / scales)
        code = np.clip(steps + middle, 0, 2**bits - 1)
        codes[:, column] = code
        error = left[:, column] - scales.astype(np.float64) * (code - middle)
        left -= np.outer(error, inverse[column] / inverse[column, column])
        inverse = inverse - np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column, column] = 1  # eliminated: never used again
    return codes


@pytest.mark.parametrize(("columns", "group"), [(64, 16), (192, 64)])
def test_it_is_what_elimination_gives(columns: int, group: int) -> None:
    values = np.random.default_rng(0).standard_normal((8, columns)).astype(np.float32)
    x = correlated(1000, columns, 1).astype(np.float64)
    found = gptq(values, x.T @ x, bits=4, group=group, symmetric=True)
    expected = by_definition(values, x.T @ x, 4, group)
    # A tie that rounds to the other side changes what comes behind it.
    assert np.mean(found.codes == expected) > 0.99


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("columns", "group"), [(128, 32), (200, 64)])
def test_outputs_on_held_out_data_are_nearer(symmetric: bool, columns: int, group: int) -> None:
    values = np.random.default_rng(0).standard_normal((64, columns)).astype(np.float32)
    x, held_out = (correlated(2000, columns, seed).astype(np.float64) for seed in (1, 2))
    options: dict[str, Any] = {"bits": 4, "group": group, "symmetric": symmetric}
    exact = held_out @ values.T

    def error(quantized: Any) -> float:
        return float(np.linalg.norm(held_out @ dequantize(quantized)[:, :columns].T - exact))

    nearest = error(quantize_groups(values, **options))
    assert error(gptq(values, x.T @ x, **options)) < 0.75 * nearest


def test_columns_that_nothing_uses_are_zero() -> None:
    values = np.random.default_rng(0).standard_normal((4, 32)).astype(np.float32)
    x = correlated(100, 32, 1).astype(np.float64)
    x[:, 5] = 0
    found = dequantize(gptq(values, x.T @ x, bits=8, group=32, symmetric=True))
    assert np.all(found[:, 5] == 0)
    assert np.all(np.isfinite(found))


def test_infinite_activations_are_refused() -> None:
    with pytest.raises(ModelError, match="not finite"):
        gptq(np.ones((1, 16), np.float32), np.full((16, 16), np.inf), bits=4, group=16, symmetric=True)


def test_a_whole_model_is_nearer_on_held_out_inputs(language: onnx.ModelProto, run: Any) -> None:
    generator = np.random.default_rng(7)
    samples = [{"ids": generator.integers(0, 60, 40)} for _ in range(20)]
    held_out = generator.integers(0, 60, 400)
    exact = run(language, ids=held_out)["logits"]

    def error(scheme: str) -> float:
        plan = find_plan(scheme, ["table=f32"])
        quantized = quantize(language, plan, samples).model
        return float(np.linalg.norm(run(quantized, ids=held_out)["logits"] - exact))

    assert error("int4-gptq") < error("int4")


def test_it_needs_samples(language: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="calibrate"):
        quantize(language, find_plan("int4-gptq"))
