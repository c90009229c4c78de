"""Schemes applied to models, which ONNX Runtime then runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.quantize.apply import Plan, parse_override, quantize
from assay.compile.quantize.dequantize import dequantize_model, stored_in_fewer_bits
from assay.compile.quantize.prepare import find_plan
from assay.compile.quantize.sites import Kind, find_weights
from assay.compile.schemes import find_scheme, schemes
from assay.errors import ModelError, UnknownNameError, UsageError

GROUPED = ["int8", "int4", "int8-asym", "int4-sym", "int4-g16", "int4-g64-sym", "int8-g64", "int4-mse"]


def test_weights_are_found_with_their_readers(language: onnx.ModelProto) -> None:
    found = {weight.name: weight for weight in find_weights(language)}
    assert set(found) == {"table", "up", "down"}
    assert found["table"].kinds == {Kind.TABLE, Kind.PRODUCT}
    assert {name: weight.shape for name, weight in found.items()} == {
        "table": (60, 96),
        "up": (136, 96),
        "down": (96, 136),
    }


def test_a_table_and_its_transpose_are_one_weight(language: onnx.ModelProto, tensors: Any) -> None:
    folded = onnx.ModelProto()
    folded.CopyFrom(language)
    table = tensors(language)["table"]
    folded.graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(table.T), "turned"))
    del folded.graph.node[5]
    names = {weight.name: weight.copies for weight in find_weights(folded)}
    assert names == {"table": ("turned",), "up": (), "down": ()}
    for scheme in ("int8", "bf16"):
        quantized = find_scheme(scheme).apply(folded)
        assert "turned" not in tensors(quantized)


@pytest.mark.parametrize("scheme", ["f16", "bf16", *GROUPED])
def test_what_onnx_runtime_computes_is_what_the_stored_numbers_say(
    scheme: str, language: onnx.ModelProto, run: Any, ids: Any
) -> None:
    quantized = find_scheme(scheme).apply(language)
    for node in quantized.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                assert attribute.i == 4
                attribute.i = 0
    plain = dequantize_model(quantized)
    assert {node.op_type for node in plain.graph.node}.isdisjoint({"MatMulNBits", "Cast"})
    expected = run(plain, ids=ids)["logits"]
    np.testing.assert_allclose(run(quantized, ids=ids)["logits"], expected, rtol=1e-4, atol=1e-5)
    exact = run(language, ids=ids)["logits"]
    bound = {"f16": 1e-3, "bf16": 1e-2}.get(scheme, 0.02 if scheme.startswith("int8") else 0.3)
    assert np.linalg.norm(expected - exact) < bound * np.linalg.norm(exact)


@pytest.mark.parametrize("scheme", GROUPED)
def test_tables_stay_at_eight_bits_and_the_tied_head_shares_their_bytes(
    scheme: str, language: onnx.ModelProto, tensors: Any
) -> None:
    result = quantize(language, Plan(scheme=find_scheme(scheme)))
    stored = {tensor.name: tensor for tensor in result.tensors}
    assert stored["table"].scheme.startswith("int8")
    found = tensors(result.model)
    group = 64 if "g64" in scheme else 16 if "g16" in scheme else 32
    if 96 % group == 0:
        assert found["table"].shape == (60, 96 // group, group)
        assert "table/rows" not in found
    else:
        assert found["table/rows"].shape == (60, 96)
    assert found["up"].dtype == np.uint8


@pytest.mark.parametrize("scheme", [name for name in GROUPED if "g64" not in name])
def test_bytes_of_a_tensor_are_those_of_its_initializers(
    scheme: str, language: onnx.ModelProto, tensors: Any
) -> None:
    result = quantize(language, Plan(scheme=find_scheme(scheme)))
    found = tensors(result.model)
    for tensor in result.tensors:
        actual = found[tensor.name].nbytes + found[f"{tensor.name}/scales"].size * 2
        actual += found[f"{tensor.name}/zero_points"].nbytes if f"{tensor.name}/zero_points" in found else 0
        assert tensor.bytes == actual


@pytest.mark.parametrize("scheme", ["f16", "bf16", "int8-asym", "int4-g64"])
def test_dequantizing_gives_the_weights_back_under_their_names(
    scheme: str, language: onnx.ModelProto, tensors: Any
) -> None:
    assert not stored_in_fewer_bits(language)
    quantized = find_scheme(scheme).apply(language)
    assert stored_in_fewer_bits(quantized)
    again = schemes()["f32"].apply(quantized)
    assert not stored_in_fewer_bits(again)
    before = {weight.name: weight for weight in find_weights(language)}
    after = {weight.name.removesuffix("/rows"): weight for weight in find_weights(again)}
    assert set(after) == set(before)
    for name, weight in after.items():
        assert weight.shape == before[name].shape
        values = before[name].values()
        error = np.linalg.norm(weight.values() - values) / np.linalg.norm(values)
        assert 0 < error < 0.15


def test_quantizing_twice_is_quantizing_once(language: onnx.ModelProto, tensors: Any) -> None:
    once = find_scheme("int8").apply(language)
    twice = find_scheme("int8").apply(once)
    for name in ("up", "down"):
        np.testing.assert_array_equal(tensors(once)[name], tensors(twice)[name])


def test_source_changes_nothing(language: onnx.ModelProto) -> None:
    assert schemes()["source"].apply(language) == language


def test_the_first_override_that_matches_holds(language: onnx.ModelProto) -> None:
    plan = find_plan("int4", ["up=f16", "layer/*=int8-g16"])
    assert plan.name == "int4,up=f16,layer/*=int8-g16"
    assert find_plan(plan.name) == plan
    stored = {tensor.name: tensor.scheme for tensor in quantize(language, plan).tensors}
    assert stored == {"table": "int8", "up": "f16", "down": "int8-g16"}


def test_an_override_that_matches_nothing_suggests_a_name(language: onnx.ModelProto) -> None:
    with pytest.raises(UnknownNameError, match="'dwon'") as raised:
        quantize(language, find_plan("int4", ["dwon=int8"]))
    assert "down" in (raised.value.hint or "")


def test_an_override_that_cannot_be_is_refused(language: onnx.ModelProto) -> None:
    with pytest.raises(UsageError, match="shorter than a group of 128"):
        quantize(language, find_plan("f32", ["up=int4-g128"]))


@pytest.mark.parametrize("text", ["", "int8", "=int8", "head=", "head=source"])
def test_overrides_are_pattern_and_scheme(text: str) -> None:
    with pytest.raises(UsageError):
        parse_override(text)


def test_rows_shorter_than_a_group_stay_in_float32(language: onnx.ModelProto) -> None:
    stored = {tensor.name: tensor for tensor in quantize(language, find_plan("int4-g128")).tensors}
    assert {name: tensor.scheme for name, tensor in stored.items()} == {
        "table": "f32",
        "up": "f32",
        "down": "int4-g128",
    }
    assert "shorter than a group" in (stored["up"].note or "")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("scheme", ["f16", "int8", "int4-asym"])
def test_weights_that_are_not_finite_are_named(
    value: float, scheme: str, language: onnx.ModelProto, tensors: Any
) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(language)
    array = tensors(language)["up"].copy()
    array[3, 4] = value
    index = [tensor.name for tensor in broken.graph.initializer].index("up")
    broken.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, "up"))
    with pytest.raises(ModelError, match=r"'up'.*not finite"):
        find_scheme(scheme).apply(broken)


def test_a_weight_too_large_for_float16_is_named(language: onnx.ModelProto, tensors: Any) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(language)
    array = tensors(language)["up"] * np.float32(1e6)
    index = [tensor.name for tensor in broken.graph.initializer].index("up")
    broken.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(array, "up"))
    with pytest.raises(ModelError, match=r"'up'.*too large for float16"):
        find_scheme("f16").apply(broken)
    assert find_scheme("bf16").apply(broken)


def test_round_trips_of_activations_only_clip_and_weights_come_back(run: Any) -> None:
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    generator = np.random.default_rng(2)
    codes = generator.integers(-127, 128, (20, 16)).astype(np.int8)
    scales = generator.uniform(0.01, 0.02, 16).astype(np.float32)
    graph = onnx.helper.make_graph(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
            node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
            node("MatMul", ["xd", "wd"], ["y"], name="product"),
        ],
        "qdq",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [3, 20])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [3, 16])],
        [
            array(np.float32(0.03), "s"),
            array(np.uint8(128), "z"),
            array(codes, "w"),
            array(scales, "ws"),
        ],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=10)
    x = generator.standard_normal((3, 20)).astype(np.float32)
    plain = schemes()["f32"].apply(model)
    assert [each.op_type for each in plain.graph.node] == ["Clip", "MatMul"]
    x[0, 0] = 100
    expected = np.clip(x, -128 * 0.03, 127 * 0.03) @ (codes.astype(np.float32) * scales)
    np.testing.assert_allclose(run(plain, x=x)["y"], expected, rtol=1e-5, atol=1e-5)
