from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from assay.compile.importer import import_onnx
from assay.compile.tvm_import import import_tvm
from assay.errors import MissingDependencyError, UnsupportedOperatorError

node = onnx.helper.make_node
MakeModel = Callable[..., onnx.ModelProto]


def test_operator_without_translation_is_named_with_its_node(tvm: Any, make_model: MakeModel) -> None:
    model = make_model(
        [node("Relu", ["x"], ["h"]), node("MelWeightMatrix", ["n"] * 5, ["y"], name="filters")],
        {"x": [1], "n": ([], "int64")},
        {"y": ["a", "b"]},
    )
    with pytest.raises(UnsupportedOperatorError) as raised:
        import_onnx(model)
    assert "MelWeightMatrix" in raised.value.message
    assert "'filters'" in raised.value.message
    assert raised.value.hint


def test_node_without_a_name_is_named_by_its_output(tvm: Any, make_model: MakeModel) -> None:
    model = make_model([node("Nonsense", ["x"], ["result"])], {"x": [1]}, {"result": [1]})
    with pytest.raises(UnsupportedOperatorError, match=r"Nonsense \(node 'result'\)"):
        import_onnx(model)


def test_operator_whose_translation_fails_is_named_with_its_node(tvm: Any, make_model: MakeModel) -> None:
    # TVM translates resizing only of three to five dimensions, and says so in an assertion of its own.
    resize = node("Resize", ["x", "", "", "sizes"], ["y"], name="grow", mode="cubic")
    model = make_model(
        [node("Relu", ["x"], ["unused"]), resize], {"x": [2, 3]}, {"y": [4, 6]}, {"sizes": np.array([4, 6])}
    )
    with pytest.raises(
        UnsupportedOperatorError, match=r"Resize \(node 'grow'\) cannot be compiled: ."
    ) as raised:
        import_onnx(model)
    assert raised.value.__cause__ is not None


def test_importer_is_left_as_it_was_found(tvm: Any, make_model: MakeModel) -> None:
    from tvm.relax.frontend.onnx import onnx_frontend

    before = onnx_frontend.ONNXGraphImporter._convert_operator
    with pytest.raises(UnsupportedOperatorError):
        import_onnx(
            make_model(
                [node("Resize", ["x", "", "", "s"], ["y"])],
                {"x": [2, 3]},
                {"y": [4, 6]},
                {"s": np.array([4, 6])},
            )
        )
    assert onnx_frontend.ONNXGraphImporter._convert_operator is before


def test_importing_prints_nothing(
    tvm: Any, perceptron: onnx.ModelProto, capfd: pytest.CaptureFixture[str]
) -> None:
    # What an import that failed in another test left behind is told by TVM when it is collected.
    gc.collect()
    capfd.readouterr()
    module = import_onnx(perceptron)
    assert len(module["main"].params) == 1
    assert capfd.readouterr() == ("", "")


def test_missing_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n == "tvm" or n.startswith("tvm.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tvm", None)
    monkeypatch.delitem(sys.modules, "tvm")
    monkeypatch.setattr(sys, "meta_path", [Hidden(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=r"compile"):
        import_tvm()


class Hidden:
    """An import hook for which TVM is not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "tvm":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.slow
@pytest.mark.torch
def test_torch_is_not_imported_with_the_compiler() -> None:
    import subprocess

    program = "import sys; from assay.compile.tvm_import import import_tvm; import_tvm()"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("operator", ["NonZero", "Unique"])
def test_an_operator_that_needs_more_runtime_is_named_before_anything_is_compiled(operator: str) -> None:
    node = onnx.helper.make_node(operator, ["x"], ["y"], name="culprit")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    graph = onnx.helper.make_graph([node], "g", [value], [])
    with pytest.raises(UnsupportedOperatorError, match=rf"{operator} \(node 'culprit'\).*runtime"):
        import_onnx(onnx.helper.make_model(graph))
