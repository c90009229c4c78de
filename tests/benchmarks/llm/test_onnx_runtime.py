from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from tests.compile.decoders.tiny import Tiny

from assay.benchmarks.llm import LanguageFiles
from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder, with_fast_products


@pytest.mark.parametrize("rotary", [True, False])
def test_steps_give_what_one_prompt_gives(tmp_path, rotary):
    tiny = Tiny(rotary=rotary)
    onnx.save(tiny.model(), tmp_path / "model.onnx")
    files = LanguageFiles(
        name="m", artifact=Path("a"), canonical=tmp_path / "model.onnx", gguf=None, folder=None
    )
    session = OnnxRuntimeDecoder().load(files, 1, 64, 2)
    tokens = np.random.default_rng(0).integers(0, tiny.vocabulary, (2, 12)).tolist()
    expected = session.advance(tokens)
    assert expected.shape == (2, tiny.vocabulary)
    session.reset()
    session.advance([own[:9] for own in tokens])
    for index in range(9, 12):
        found = session.advance([own[index : index + 1] for own in tokens])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_float_zero_points_are_split_from_products(tmp_path):
    """Where there are none, the canonical file itself is run."""
    files = LanguageFiles(
        name="m", artifact=Path("a"), canonical=tmp_path / "model.onnx", gguf=None, folder=None
    )
    generator = np.random.default_rng(0)
    for zero, name in ((generator.random((8, 2), np.float32), "onnxruntime.onnx"), (None, "model.onnx")):
        onnx.save(product(zero), tmp_path / "model.onnx")
        assert with_fast_products(files, tmp_path).canonical == tmp_path / name
    nothing = LanguageFiles(name="m", artifact=Path("a"), canonical=None, gguf=None, folder=None)
    assert with_fast_products(nothing, tmp_path) == nothing


def product(zero):
    weights = {
        "codes": np.random.default_rng(1).integers(0, 256, (8, 2, 16), dtype=np.uint8),
        "scales": np.ones((8, 2), np.float32),
        **({} if zero is None else {"zero": zero}),
    }
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", *weights], ["y"], domain="com.microsoft", N=8, K=64, bits=4, block_size=32
    )
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", "tokens", size])
        for name, size in (("x", 64), ("y", 8))
    ]
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:], tensors))
