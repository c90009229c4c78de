"""What a reference kernel is: an ONNX graph of a few operators, and the same in NumPy and in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.models.spec import Array, DType, InputSpec, ModelSpec, Tolerance, Weights

if TYPE_CHECKING:
    import onnx

__all__ = ["KernelSpec", "kernel_model"]

Shape = tuple[int, ...]
# Operator set: the newest that spells every kernel in operators that each engine knows.
_OPSET = 18
_IR_VERSION = 10
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class KernelSpec:
    """A float32 kernel; every operand is an input, none a constant.

    ``inputs``: shapes by name, in order. ``nodes`` gives the ONNX nodes that compute the output ``y`` of
    shape ``output`` from them, and the constants that they need. ``numpy`` and ``torch`` compute it from
    arrays or tensors in that order. ``operations``: arithmetic operations of one call.
    """

    name: str
    family: str
    inputs: Mapping[str, Shape]
    output: Shape
    nodes: Callable[[], tuple[Sequence[onnx.NodeProto], Sequence[onnx.TensorProto]]]
    numpy: Callable[..., Array]
    torch: Callable[..., Any]
    operations: int
    tolerance: Tolerance = field(default_factory=Tolerance)

    @property
    def touched(self) -> int:
        """Bytes of operands and result, each once."""
        return _FLOAT_BYTES * sum(math.prod(shape) for shape in (*self.inputs.values(), self.output))


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """Provides a kernel's ONNX graph."""

    spec: KernelSpec
    nodes: Callable[..., Any]

    def onnx_path(self, folder: Path) -> Path:
        """Path of the graph, written below ``folder``."""
        import onnx
        from onnx import TensorProto, helper

        nodes, constants = self.nodes()
        graph = helper.make_graph(
            list(nodes),
            self.spec.name,
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.spec.inputs.items()],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, self.spec.output)],
            list(constants),
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        path = folder / "kernel.onnx"
        onnx.save(model, path)
        return path


def kernel_model(spec: KernelSpec) -> ModelSpec:
    """The kernel as a model, to be exported, compiled, verified and measured as any other."""
    return ModelSpec(
        name=spec.name,
        description=f"Reference kernel of the family {spec.family}.",
        provider=_Graph(spec=spec, nodes=spec.nodes),
        inputs=tuple(
            InputSpec(name=name, dtype=DType.FLOAT32, shape=shape) for name, shape in spec.inputs.items()
        ),
        weights=Weights.RANDOM,
        licence="Apache-2.0",
        tolerance=spec.tolerance,
    )
