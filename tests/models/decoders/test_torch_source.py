"""PyTorch modules as a source."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from assay.errors import ModelError

pytestmark = pytest.mark.torch


def test_tensors_come_in_the_dtypes_that_graphs_have() -> None:
    import ml_dtypes
    import torch

    from assay.models.decoders.torch_source import TorchWeights

    values = torch.randn(3, 4, dtype=torch.float64)
    dtypes = {torch.float32: np.float32, torch.float16: np.float16, torch.bfloat16: ml_dtypes.bfloat16}
    weights = TorchWeights({str(dtype): values.to(dtype).T for dtype in (*dtypes, torch.float64)})
    assert list(weights.names()) == [str(dtype) for dtype in (*dtypes, torch.float64)]
    assert weights.shape("torch.float32") == (4, 3)
    for dtype, expected in dtypes.items():
        array = weights.read(str(dtype))
        assert array.dtype == expected
        np.testing.assert_array_equal(array.astype(np.float64), values.to(dtype).double().numpy().T)
    assert weights.read("torch.float64").dtype == np.float32


def test_a_module_gives_its_parameters() -> None:
    import torch

    from assay.models.decoders.torch_source import TorchWeights

    module = torch.nn.Linear(3, 2)
    weights = TorchWeights(module)
    assert list(weights.names()) == ["weight", "bias"]
    np.testing.assert_array_equal(weights.read("weight"), module.weight.detach().numpy())


def test_a_checkpoint_that_is_no_state_dict_is_refused() -> None:
    from assay.models.decoders.torch_source import TorchWeights

    with pytest.raises(ModelError, match="holds more than tensors: epoch"):
        TorchWeights({"epoch": 3})


@pytest.mark.parametrize("source", [object(), {"a": 1}])
def test_what_has_no_configuration_is_refused(source: Any) -> None:
    from assay.models.decoders.torch_source import config_from_torch

    with pytest.raises(ModelError, match="has no configuration"):
        config_from_torch(source)


def test_weights_that_are_not_finite_are_refused() -> None:
    import torch

    from assay.models.decoders.torch_source import TorchWeights

    weights = TorchWeights({"w": torch.tensor([1.0, float("nan"), float("inf")])})
    with pytest.raises(ModelError, match="'w' has 2 weights that are not finite"):
        weights.read("w")
