from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest

from assay.errors import MissingDependencyError, ModelError
from assay.models.export import export_canonical
from assay.models.inputs import make_inputs, verification_sizes
from assay.models.providers import TorchModule
from assay.models.registry import models
from assay.models.spec import DType, InputSpec, ModelSpec, SymbolicDim, Weights

if TYPE_CHECKING:
    import torch

BATCH = SymbolicDim(name="batch", default=1, maximum=16)
LENGTH = SymbolicDim(name="length", default=5, maximum=40)
INPUTS = (
    InputSpec(name="left", dtype=DType.FLOAT32, shape=(BATCH, LENGTH, 4)),
    InputSpec(name="right", dtype=DType.FLOAT32, shape=(BATCH, LENGTH, 4)),
)


def _scores() -> torch.nn.Module:
    import torch

    from assay.models.zoo.torch_init import randomize

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)
            self.norm = torch.nn.LayerNorm(4)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.norm(self.layer(left)) @ right.transpose(1, 2), -1)

    return randomize(Scores())


def _undecided() -> torch.nn.Module:
    import torch

    class Undecided(torch.nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left if left.sum() > 0 else right

    return Undecided()


def _spec(provider: TorchModule) -> ModelSpec:
    return ModelSpec(
        name="scores",
        description="Test.",
        provider=provider,
        inputs=INPUTS,
        weights=Weights.RANDOM,
        licence="Apache-2.0",
        needs_torch=True,
    )


@pytest.mark.slow
@pytest.mark.torch
def test_a_module_with_symbolic_dimensions_computes_what_torch_does(tmp_path: Path) -> None:
    import torch

    exported = export_canonical(
        _spec(TorchModule(factory=_scores, inputs=INPUTS, outputs=("scores",))), tmp_path
    )
    assert [(output.name, output.shape) for output in exported.outputs] == [
        ("scores", ("batch", "length", "length"))
    ]
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    module = _scores()
    for sizes in verification_sizes(exported.spec):
        inputs = make_inputs(exported.spec, sizes)
        with torch.no_grad():
            wanted = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        np.testing.assert_allclose(session.run(None, inputs)[0], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.torch
def test_exporting_twice_gives_the_same_bytes_without_any_path(tmp_path: Path) -> None:
    provider = TorchModule(factory=_scores, inputs=INPUTS, outputs=("scores",))
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        contents.append(provider.onnx_path(tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert str(Path.cwd()).encode() not in contents[0]
    assert b".py" not in contents[0]


@pytest.mark.slow
@pytest.mark.torch
def test_exporting_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    TorchModule(factory=_scores, inputs=INPUTS, outputs=("scores",)).onnx_path(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.torch
def test_what_torch_cannot_export_is_one_model_error(tmp_path: Path) -> None:
    provider = TorchModule(factory=_undecided, inputs=INPUTS, outputs=("y",))
    with pytest.raises(ModelError, match="torch cannot export the module") as caught:
        provider.onnx_path(tmp_path)
    assert "\n" not in caught.value.message
    assert list(tmp_path.iterdir()) == []


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"pip install '\.\[torch\]'"):
        export_canonical(models()["resnet18"], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.torch
def test_every_parameter_of_a_module_is_filled_once() -> None:
    import torch

    from assay.models.zoo.torch_init import randomize

    def build() -> torch.nn.Module:
        module = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8, 2)
        )
        return randomize(module, gains={"0": 2.0})

    first, second = build().state_dict(), build().state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
        if tensor.is_floating_point():
            assert tensor.numel() == 1 or tensor.std() > 0, name
    assert not build().training
    assert first["0.weight"].std().item() == pytest.approx((2 / 27) ** 0.5, rel=0.2)
