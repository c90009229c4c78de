"""A model from another provider whose generated weights are replaced by seeded random ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError
from assay.models.providers.seeded import Role, draw
from assay.models.spec import Provider

if TYPE_CHECKING:
    import onnx

__all__ = ["RandomWeights"]

# Input positions that are weights, by operator: those of kernels carry the bias as well.
_POSITIONS = {
    "Conv": {1: Role.KERNEL, 2: Role.BIAS},
    "Gemm": {1: Role.KERNEL, 2: Role.BIAS},
    "MatMul": {1: Role.KERNEL},
    "BatchNormalization": {1: Role.SCALE, 2: Role.SHIFT, 3: Role.MEAN, 4: Role.VARIANCE},
    "Mul": {1: Role.SCALE},
    "Add": {1: Role.SHIFT},
}


@dataclass(frozen=True, kw_only=True)
class RandomWeights:
    """``source`` with each ``ConstantOfShape`` that stands for a float weight replaced by random numbers.

    The ONNX package's "light" models are classic networks whose weights were cut down to one repeated value, so
    that their outputs are all the same number and hide most mistakes. The role of each tensor, and so its
    distribution, follows from the operator that reads it. ``residual_scale`` is the scale of a normalisation
    whose output goes straight into a sum, which keeps a residual network from growing with its depth;
    ``final_gain`` the gain of a kernel before the last softmax, which keeps the softmax from saturating.
    """

    source: Provider
    seed: int = 0
    residual_scale: float = 0.5
    final_gain: float = 1.0

    def onnx_path(self, folder: Path) -> Path:
        """Path of the changed copy below ``folder``; raises ModelError when no weight is found to replace."""
        from assay.models.export.interface import drop_initializer_inputs
        from assay.models.export.safe_load import load_safely

        model = load_safely(self.source.onnx_path(folder)).model
        drop_initializer_inputs(model)
        if not self._fill(model):
            raise ModelError("The model has no generated weights to replace by random ones.")
        path = folder / "random.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def _fill(self, model: onnx.ModelProto) -> int:
        import onnx

        graph = model.graph
        shapes = {
            value.name: onnx.numpy_helper.to_array(value)
            for value in graph.initializer
            if value.data_type == onnx.TensorProto.INT64
        }
        uses = _Uses(graph)
        filled = []
        for node in graph.node:
            if node.op_type != "ConstantOfShape" or node.input[0] not in shapes:
                continue
            shape = tuple(int(size) for size in shapes[node.input[0]])
            role, consumer = uses.role_of(node.output[0])
            values = draw(
                node.output[0],
                shape,
                role,
                seed=self.seed,
                fan_in=_fan_in(consumer, shape) if role is Role.KERNEL else 1,
                gain=self._gain(role, consumer, uses),
            )
            filled.append((node, onnx.numpy_helper.from_array(values, node.output[0])))
        replaced = {node.input[0] for node, _ in filled}
        for node, tensor in filled:
            graph.node.remove(node)
            graph.initializer.append(tensor)
        kept = {name for node in graph.node for name in node.input}
        for values in [value for value in graph.initializer if value.name in replaced - kept]:
            graph.initializer.remove(values)
        return len(filled)

    def _gain(self, role: Role, consumer: onnx.NodeProto, uses: _Uses) -> float:
        following = uses.operators_reached(consumer)
        if role is Role.SCALE:
            return self.residual_scale if "Sum" in following else 1.0
        if role is Role.KERNEL:
            return 2.0 if "Relu" in following else self.final_gain
        return 1.0


class _Uses:
    """Which nodes read each value."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for position, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, position))

    def role_of(self, name: str) -> tuple[Role, onnx.NodeProto]:
        """The role of the weight ``name``, and the node that gives it; looks through shape changes."""
        for node, position in self._readers.get(name, []):
            if node.op_type in ("Unsqueeze", "Reshape", "Identity"):
                return self.role_of(node.output[0])
            role = _POSITIONS.get(node.op_type, {}).get(position)
            if role is not None:
                return role, node
        raise ModelError(f"The generated tensor {name!r} is not read as a weight.")

    def operators_reached(self, node: onnx.NodeProto) -> set[str]:
        """Operators that read ``node``'s output, looking through normalisations and data movement."""
        reached: set[str] = set()
        for reader, _ in self._readers.get(node.output[0], []):
            reached.add(reader.op_type)
            if reader.op_type in ("BatchNormalization", "Mul", "Add", "Dropout", "Concat"):
                reached |= self.operators_reached(reader)
        return reached


def _fan_in(consumer: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    """How many products one output element of ``consumer`` sums."""
    if consumer.op_type == "Conv":
        return math.prod(shape[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in consumer.attribute)
    return shape[1] if transposed else shape[0]
