"""Operators on integers, as ONNX Runtime's quantizer writes them, in their other form: DequantizeLinear, the
float operator, QuantizeLinear (QDQ).

One form is enough for the compiler, which puts the integers back, and for ONNX Runtime, which does too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

__all__ = ["has_integer_operators", "to_qdq"]

# DequantizeLinear takes one scale a channel from this operator set on.
_FIRST_OPSET = 13

# Of com.microsoft, with operands (x, scale, zero) one after the other, then the output's scale and zero.
_PLAIN = {
    "QLinearAdd": ("Add", 2),
    "QLinearMul": ("Mul", 2),
    "QLinearSigmoid": ("Sigmoid", 1),
    "QLinearLeakyRelu": ("LeakyRelu", 1),
    "QLinearSoftmax": ("Softmax", 1),
    "QLinearAveragePool": ("AveragePool", 1),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", 1),
}
# Attributes that the float operator does not have, and the one value of each that means nothing.
_NEUTRAL = {"channels_last": 0, "opset": None}


def has_integer_operators(model: onnx.ModelProto) -> bool:
    """Whether ``to_qdq`` would change the model."""
    return any(node.op_type in _REWRITES for node in model.graph.node)


def to_qdq(model: onnx.ModelProto) -> bool:
    """Replace the operators on integers, in place; whether there were any.

    Raises ModelError, naming the node, for a form that no quantizer writes: parameters that are not constant,
    or an operator set before 13.
    """
    if not has_integer_operators(model):
        return False
    import onnx

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < _FIRST_OPSET:
        raise ModelError(
            f"The model has quantized operators and operator set {opset}; they need {_FIRST_OPSET} or later.",
            hint="Convert it with onnx.version_converter before it is quantized.",
        )
    result = onnx.GraphProto()
    for node in model.graph.node:
        rewrite = _REWRITES.get(node.op_type)
        if rewrite is None:
            result.node.append(node)
        else:
            rewriter = _Rewriter(model.graph, node)
            rewrite(rewriter)
            result.node.extend(rewriter.nodes)
    del model.graph.node[:]
    model.graph.node.extend(result.node)
    return True


class _Rewriter:
    """The nodes that replace one node, under construction."""

    def __init__(self, graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
        self.graph, self.node = graph, node
        self.nodes: list[onnx.NodeProto] = []
        self.name = node.name or node.output[0]

    def input(self, position: int) -> str:
        """The name of an input; empty where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def attributes(self) -> dict[str, object]:
        """The node's attributes, without those that say nothing."""
        import onnx

        found = {item.name: onnx.helper.get_attribute_value(item) for item in self.node.attribute}
        for name, neutral in _NEUTRAL.items():
            value = found.pop(name, neutral)
            if neutral is not None and value != neutral:
                raise ModelError(f"The node {self.name!r} ({self.node.op_type}) has {name} = {value}.")
        return found

    def is_only_cast_to_float(self, name: str) -> bool:
        """Whether nothing reads a value but casts to float32, which a float32 passes as it is."""
        import onnx

        readers = [node for node in self.graph.node if name in node.input]
        return all(output.name != name for output in self.graph.output) and all(
            reader.op_type == "Cast" and reader.attribute[0].i == onnx.TensorProto.FLOAT for reader in readers
        )

    def constant(self, name: str) -> npt.NDArray[np.generic]:
        """The value of an initializer."""
        import onnx

        for tensor in self.graph.initializer:
            if tensor.name == name:
                values: npt.NDArray[np.generic] = onnx.numpy_helper.to_array(tensor)
                return values
        raise ModelError(
            f"The parameter {name!r} of the node {self.name!r} ({self.node.op_type}) is not a constant."
        )

    def add_constant(self, suffix: str, values: npt.NDArray[np.generic]) -> str:
        """A new initializer named after the node."""
        import onnx

        name = f"{self.node.output[0]}/{suffix}"
        self.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        """Append a node and give its output."""
        import onnx

        label = self.name if output == self.node.output[0] else f"{self.name}/{operator}{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operator, list(inputs), [output], name=label, **attributes))
        return output

    def value(self, suffix: str) -> str:
        """The name of an intermediate result."""
        return f"{self.node.output[0]}/{suffix}"

    def real(self, x: str, scale: str, zero: str, axis: int | None = None) -> str:
        """``x`` dequantized; ``axis``: along which a vector of scales lies."""
        attributes: dict[str, object] = {}
        if axis is not None and self.constant(scale).size > 1:
            attributes["axis"] = axis
        inputs = [x, scale, zero] if zero else [x, scale]
        return self.add("DequantizeLinear", inputs, self.value(f"real{len(self.nodes)}"), **attributes)

    def quantized(self, x: str, scale: str, zero: str) -> None:
        """The node's output: ``x`` quantized."""
        inputs = [x, scale, zero] if zero else [x, scale]
        self.add("QuantizeLinear", inputs, self.node.output[0])

    def bias(self, name: str, scales: Sequence[str], factor: float = 1.0) -> str:
        """An int32 bias in units of the product of ``scales``, dequantized."""
        import numpy as np

        unit: npt.NDArray[np.float64] = np.array(factor, np.float64)
        for scale in scales:
            unit = unit * self.constant(scale).astype(np.float64)
        zero = np.zeros(np.shape(unit), np.int32)
        scale = self.add_constant("bias_scale", np.asarray(unit, np.float32))
        return self.real(name, scale, self.add_constant("bias_zero", zero), axis=0)

    def reals(self, first: int, count: int) -> list[str]:
        """Operands from the input ``first`` on, each with its scale and zero behind it, dequantized."""
        starts = range(first, first + 3 * count, 3)
        return [self.real(self.input(i), self.input(i + 1), self.input(i + 2)) for i in starts]


def _plain(rewriter: _Rewriter) -> None:
    operator, operands = _PLAIN[rewriter.node.op_type]
    result = rewriter.add(
        operator, rewriter.reals(0, operands), rewriter.value("result"), **rewriter.attributes()
    )
    rewriter.quantized(result, rewriter.input(3 * operands), rewriter.input(3 * operands + 1))


def _concat(rewriter: _Rewriter) -> None:
    count = (len(rewriter.node.input) - 2) // 3
    result = rewriter.add(
        "Concat", rewriter.reals(2, count), rewriter.value("result"), **rewriter.attributes()
    )
    rewriter.quantized(result, rewriter.input(0), rewriter.input(1))


def _conv(rewriter: _Rewriter) -> None:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = (rewriter.input(i) for i in range(8))
    operands = [rewriter.real(x, x_scale, x_zero), rewriter.real(w, w_scale, w_zero, axis=0)]
    if rewriter.input(8):
        operands.append(rewriter.bias(rewriter.input(8), (x_scale, w_scale)))
    result = rewriter.add("Conv", operands, rewriter.value("result"), **rewriter.attributes())
    rewriter.quantized(result, y_scale, y_zero)


def _matmul(rewriter: _Rewriter) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = (rewriter.input(i) for i in range(8))
    operands = [rewriter.real(a, a_scale, a_zero), rewriter.real(b, b_scale, b_zero, axis=-1)]
    result = rewriter.add("MatMul", operands, rewriter.value("result"))
    rewriter.quantized(result, y_scale, y_zero)


def _gemm(rewriter: _Rewriter) -> None:
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = (rewriter.input(i) for i in range(9))
    attributes = rewriter.attributes()
    alpha = float(str(attributes.get("alpha", 1.0)))
    axis = 0 if attributes.get("transB", 0) else 1
    operands = [rewriter.real(a, a_scale, a_zero), rewriter.real(b, b_scale, b_zero, axis=axis)]
    if c:
        operands.append(rewriter.bias(c, (a_scale, b_scale), alpha))
    output = rewriter.value("result") if y_scale else rewriter.node.output[0]
    result = rewriter.add("Gemm", operands, output, **attributes)
    if y_scale:
        rewriter.quantized(result, y_scale, y_zero)


def _integer(operator: str) -> Callable[[_Rewriter], None]:
    """MatMulInteger or ConvInteger: the float operator at scale 1, and its sums as integers again."""

    def rewrite(rewriter: _Rewriter) -> None:
        import numpy as np
        import onnx

        one = rewriter.add_constant("one", np.array(1, np.float32))
        operands = []
        for position, axis in ((0, None), (1, 0 if operator == "Conv" else -1)):
            zero = rewriter.input(2 + position)
            scale = one
            if axis is not None and zero and rewriter.constant(zero).size > 1:
                scale = rewriter.add_constant("ones", np.ones(rewriter.constant(zero).shape, np.float32))
            operands.append(rewriter.real(rewriter.input(position), scale, zero, axis=axis))
        output = rewriter.node.output[0]
        if rewriter.is_only_cast_to_float(output):
            rewriter.add(operator, operands, output, **rewriter.attributes())
            return
        result = rewriter.add(operator, operands, rewriter.value("result"), **rewriter.attributes())
        rewriter.add("Cast", [result], output, to=onnx.TensorProto.INT32)

    return rewrite


_Rewrite: TypeAlias = Callable[[_Rewriter], None]

_REWRITES: Mapping[str, _Rewrite] = {
    **dict.fromkeys(_PLAIN, _plain),
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QLinearConcat": _concat,
    "QGemm": _gemm,
    "MatMulInteger": _integer("MatMul"),
    "ConvInteger": _integer("Conv"),
}
