from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from assay.models.export import CanonicalModel, export_canonical
from assay.models.inputs import make_inputs, verification_sizes
from assay.models.registry import models

# Models whose export takes about a second.
QUICK = ("silero-vad", "basic-pitch", "light-shufflenet", "light-squeezenet", "light-inception-v1")

CASES = [
    pytest.param(
        name,
        marks=[
            *([] if name in QUICK else [pytest.mark.slow]),
            *([pytest.mark.torch] if spec.needs_torch else []),
        ],
    )
    for name, spec in models().items()
    # Decoders have a canonical form of their own: tests/models/decoders, and test_smollm2.py.
    if spec.decoder is None
]


@pytest.fixture(scope="module", params=CASES)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CanonicalModel]:
    """Each model of the zoo in turn, exported; only one at a time, because together they are gigabytes."""
    folder = tmp_path_factory.mktemp("export")
    yield export_canonical(models()[request.param], folder)
    shutil.rmtree(folder)


def _session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_outputs_are_finite_and_depend_on_the_inputs(exported: CanonicalModel) -> None:
    session = _session(exported.path)
    first, second = (session.run(None, make_inputs(exported.spec, seed=seed)) for seed in (0, 1))
    for output, one, other in zip(exported.outputs, first, second, strict=True):
        assert np.isfinite(one).all(), output.name
        assert one.dtype.name == output.dtype
        spread = one.std() if one.size > 1 else abs(float(one.item()))
        assert 1e-5 < spread < 10, output.name
        assert np.abs(one - other).max() > 0.02 * spread, output.name
        # Softmax outputs that are all in one class would hide every mistake before them.
        if one.size == 1000 and one.min() >= 0:
            assert one.max() < 0.9, output.name


def test_outputs_have_the_declared_shapes_at_every_size(exported: CanonicalModel) -> None:
    session = _session(exported.path)
    for sizes in verification_sizes(exported.spec):
        if np.prod(list(sizes.values())) > 600:
            continue
        for output, values in zip(
            exported.outputs, session.run(None, make_inputs(exported.spec, sizes)), strict=True
        ):
            shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in output.shape)
            assert values.shape == shape, (output.name, sizes)


def test_the_graph_is_plain(exported: CanonicalModel) -> None:
    model = onnx.load_model(exported.path)
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    assert not {"Identity", "Dropout", "Constant", "If", "Loop", "BatchNormalization", "Sum"} & {
        node.op_type for node in model.graph.node
    }
    assert [entry.domain for entry in model.opset_import] == [""]


def test_the_importer_takes_it(exported: CanonicalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" not in sys.modules:
        # tvm_ffi imports torch where it is installed, which takes seconds and is not needed here.
        monkeypatch.setitem(sys.modules, "torch", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tvm.relax.frontend.onnx import from_onnx

        module = from_onnx(onnx.load_model(exported.path), keep_params_in_input=True)
    assert len(module["main"].params) >= len(exported.spec.inputs)
