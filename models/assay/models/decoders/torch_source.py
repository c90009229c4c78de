"""Decoders that are PyTorch modules: a causal language model of transformers, or its state dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assay.errors import MissingDependencyError, ModelError
from assay.models.decoders.config import DecoderConfig
from assay.models.decoders.read_config import config_from_hf

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TorchWeights", "config_from_torch", "values_from_torch"]


def config_from_torch(model: Any) -> DecoderConfig:
    """The configuration of a causal language model of transformers, or of its ``config``.

    Raises ModelError for what has no configuration, and as ``config_from_hf`` does.
    """
    return config_from_hf(values_from_torch(model))


def values_from_torch(model: Any) -> Mapping[str, Any]:
    """What the ``config.json`` of a causal language model of transformers, or of its ``config``, would hold.

    Raises ModelError for what has no configuration.
    """
    config = getattr(model, "config", model)
    if not hasattr(config, "to_dict"):
        raise ModelError(
            f"A {type(model).__name__} has no configuration to read.",
            hint="Pass a causal language model of transformers, or a state dict with its configuration.",
        )
    values: Mapping[str, Any] = config.to_dict()
    return values


class TorchWeights:
    """The parameters of a module, or of a state dict, under Hugging Face's names (``Naming.HF``).

    A tensor stored under two names (a tied head) is under both. Raises MissingDependencyError without torch,
    ModelError for a state dict that holds anything but tensors.
    """

    def __init__(self, source: Any) -> None:
        try:
            import torch
        except ImportError:
            raise MissingDependencyError("torch", "torch") from None
        state: Mapping[str, Any] = source if isinstance(source, Mapping) else source.state_dict()
        strangers = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if strangers:
            raise ModelError(f"The state dict holds more than tensors: {', '.join(strangers[:5])}.")
        self._state = state

    def names(self) -> Sequence[str]:
        """Names of all tensors, in the module's order."""
        return list(self._state)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._state[name].shape)

    def read(self, name: str) -> npt.NDArray[Any]:
        """A tensor as float32, float16 or ``ml_dtypes.bfloat16``; of any other dtype as float32.

        Raises ModelError for one that is not finite.
        """
        import torch

        tensor = self._state[name].detach().cpu().contiguous()
        wrong = tensor.numel() - int(torch.isfinite(tensor).sum())
        if wrong:
            raise ModelError(f"The tensor {name!r} has {wrong} weights that are not finite.")
        if tensor.dtype is torch.bfloat16:
            import ml_dtypes
            import numpy as np

            bits: npt.NDArray[Any] = tensor.view(torch.int16).numpy().view(np.dtype(ml_dtypes.bfloat16))
            return bits
        if tensor.dtype not in (torch.float32, torch.float16):
            tensor = tensor.to(torch.float32)
        array: npt.NDArray[Any] = tensor.numpy()
        return array
