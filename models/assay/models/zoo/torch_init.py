"""Seeded random weights for PyTorch modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from assay.models.providers.seeded import Role, draw

if TYPE_CHECKING:
    import torch

__all__ = ["randomize"]


def randomize(
    module: torch.nn.Module, *, seed: int = 0, gains: dict[str, float] | None = None
) -> torch.nn.Module:
    """Fill every parameter and running statistic of ``module``, in place, and return it in evaluation mode.

    ``gains`` maps the ends of layer names to a gain (see ``draw``): of the variance of a kernel, or of the
    scale of a normalisation. Other kernels have 1, other scales 1.
    """
    import torch

    tied: set[int] = set()
    for layer_name, layer in module.named_modules():
        gain = next((gain for end, gain in (gains or {}).items() if layer_name.endswith(end)), 1.0)
        tensors = [*layer.named_parameters(recurse=False), *layer.named_buffers(recurse=False)]
        for name, tensor in tensors:
            role = _role(layer, name, tensor)
            if role is None or id(tensor) in tied:
                continue
            tied.add(id(tensor))
            values = draw(
                f"{layer_name}.{name}",
                tuple(tensor.shape),
                role,
                seed=seed,
                fan_in=_fan_in(tensor),
                gain=gain if role in (Role.KERNEL, Role.SCALE) else 1.0,
            )
            with torch.no_grad():
                tensor.copy_(torch.from_numpy(values))
    return module.eval()


def _role(layer: torch.nn.Module, name: str, tensor: torch.Tensor) -> Role | None:
    """The role of a tensor; None for a buffer that is no weight, such as position ids."""
    import torch

    if not tensor.is_floating_point():
        return None
    if name in ("running_mean", "running_var"):
        return Role.MEAN if name == "running_mean" else Role.VARIANCE
    if not isinstance(tensor, torch.nn.Parameter):
        return None
    normalises = isinstance(layer, torch.nn.LayerNorm | torch.nn.BatchNorm2d)
    if name == "bias":
        return Role.SHIFT if normalises else Role.BIAS
    if name != "weight" or isinstance(layer, torch.nn.Embedding):
        return Role.EMBEDDING
    return Role.SCALE if normalises else Role.KERNEL


def _fan_in(tensor: torch.Tensor) -> int:
    if tensor.dim() < 2:
        return 1
    return int(tensor[0].numel())
