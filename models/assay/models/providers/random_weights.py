"""A model from another provider whose generated weights are replaced by seeded random ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from assay.errors import ModelError
from assay.models.providers.seeded import Role, draw
from assay.models.spec import Provider

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["RandomWeights"]

_DATA_FILE = "random.bin"
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

    The ONNX package's "light" models are classic networks whose weights were cut down to one repeated value,
    so that their outputs are all the same number and hide most mistakes. The few real weights left in them
    fit no longer, and are replaced too. The role of each tensor, and so its distribution, follows from the
    operator that reads it. ``residual_scale`` is the scale of a normalisation whose output goes straight into
    a sum, which keeps a residual network from growing with its depth; ``final_gain`` the gain of a kernel
    before the last softmax, which keeps the softmax from saturating.
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
        with (folder / _DATA_FILE).open("wb") as data:
            if not self._fill(model, data):
                raise ModelError("The model has no generated weights to replace by random ones.")
        path = folder / "random.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        return path

    def _fill(self, model: onnx.ModelProto, data: BinaryIO) -> int:
        """Replace the weights in place by tensors in ``data``; how many were generated ones."""
        import onnx

        from assay.models.export.weights import write_external

        graph = model.graph
        uses = _Uses(graph)
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        shapes: dict[str, tuple[int, ...]] = {}
        generators = []
        for node in graph.node:
            if node.op_type == "ConstantOfShape" and node.input[0] in tensors:
                shape = onnx.numpy_helper.to_array(tensors[node.input[0]])
                shapes[node.output[0]] = tuple(int(size) for size in shape)
                generators.append(node)
        for tensor in list(tensors.values()):
            if tensor.data_type == onnx.TensorProto.FLOAT:
                graph.initializer.remove(tensor)
                # Exports of Caffe2 carry blobs of the training queue along.
                if uses.is_read(tensor.name):
                    shapes[tensor.name] = tuple(tensor.dims)
        for name, shape in shapes.items():
            tensor = write_external(data, _DATA_FILE, self._draw(name, shape, uses).data)
            tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
            tensor.dims.extend(shape)
            graph.initializer.append(tensor)
        unread = {node.input[0] for node in generators}
        for node in generators:
            graph.node.remove(node)
        unread -= {name for node in graph.node for name in node.input}
        for tensor in [tensor for tensor in graph.initializer if tensor.name in unread]:
            graph.initializer.remove(tensor)
        return len(generators)

    def _draw(self, name: str, shape: tuple[int, ...], uses: _Uses) -> npt.NDArray[np.float32]:
        role, consumer = uses.role_of(name)
        fan_in = _fan_in(consumer, shape) if role is Role.KERNEL else 1
        gain = self._gain(role, consumer, uses)
        return draw(name, shape, role, seed=self.seed, fan_in=fan_in, gain=gain)

    def _gain(self, role: Role, consumer: onnx.NodeProto, uses: _Uses) -> float:
        following = uses.operators_reached(consumer)
        if role is Role.SCALE:
            return self.residual_scale if "Sum" in following else 1.0
        if role is not Role.KERNEL:
            return 1.0
        return 2.0 if "Relu" in following else self.final_gain if "Softmax" in following else 1.0


class _Uses:
    """Which nodes read each value."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in graph.node:
            for position, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, position))

    def is_read(self, name: str) -> bool:
        """Whether any node reads ``name``."""
        return name in self._readers

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
    # Caffe keeps a matrix with leading ones, which a Reshape takes off.
    return shape[-1] if transposed else shape[-2]
