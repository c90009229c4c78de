"""A model whose weights are stored in fewer bits, in float32 again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

__all__ = ["dequantize_model", "drop_round_trips", "stored_in_fewer_bits"]

_MICROSOFT = "com.microsoft"
_FLOAT, _HALVES = 1, (10, 16)  # onnx.TensorProto.FLOAT; FLOAT16 and BFLOAT16


class _Form(Enum):
    """How a node takes part in storing something in fewer bits."""

    CONSTANT = auto()  # Cast or DequantizeLinear of an initializer
    PRODUCT = auto()  # MatMulNBits
    TABLE = auto()  # GatherBlockQuantized
    NARROW_TABLE = auto()  # Gather from a 16-bit table whose rows are only cast to float32
    WIDENED_ROWS = auto()  # those casts
    ROUND_TRIP = auto()  # DequantizeLinear of the result of a QuantizeLinear, with one constant scale


def stored_in_fewer_bits(model: onnx.ModelProto) -> bool:
    """Whether some weight of the model is stored in fewer bits than float32, or an activation quantized."""
    return bool(_Widener(model).forms)


def drop_round_trips(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which no activation is rounded; weights stay as they are.

    An activation that is quantized to be dequantized at once is clipped to the range of its integers instead:
    quantizers leave out a Relu that such a range stands for.
    """
    return _copy_rewritten(model, frozenset({_Form.ROUND_TRIP}))


def dequantize_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every weight is float32, and activations are not quantized.

    MatMulNBits becomes MatMul, GatherBlockQuantized Gather, a Cast or DequantizeLinear of an initializer the
    initializer, under its old name where nothing else reads it; a Gather from a 16-bit table one from a
    float32 table; a QuantizeLinear whose result is dequantized a Clip to the range of its integers. Integer
    operators stay. Raises ModelError for a form of these operators that is not known.
    """
    return _copy_rewritten(model, frozenset(_Form))


def _copy_rewritten(model: onnx.ModelProto, wanted: frozenset[_Form]) -> onnx.ModelProto:
    import onnx

    result = onnx.ModelProto()
    result.CopyFrom(model)
    _Widener(result).rewrite(wanted)
    return result


class _Widener:
    """Finds the forms in a model, and rewrites them in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._graph = model.graph
        self._tensors: Mapping[str, onnx.TensorProto] = {t.name: t for t in model.graph.initializer}
        self._flat = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Reshape"}
        self._quantized = {n.output[0]: n for n in model.graph.node if n.op_type == "QuantizeLinear"}
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(model.graph.node):
            for name in node.input:
                self._readers.setdefault(name, []).append(index)
        self.forms = dict(self._find())
        self._added: dict[str, onnx.TensorProto] = {}
        self._renamed: dict[str, str] = {}

    def _find(self) -> Iterator[tuple[int, _Form]]:
        for index, node in enumerate(self._graph.node):
            form = self._form(node)
            if form is None:
                continue
            yield index, form
            if form is _Form.NARROW_TABLE:
                for reader in self._readers[node.output[0]]:
                    yield reader, _Form.WIDENED_ROWS

    def _form(self, node: onnx.NodeProto) -> _Form | None:
        if node.domain == _MICROSOFT:
            known = {"MatMulNBits": _Form.PRODUCT, "GatherBlockQuantized": _Form.TABLE}
            return known.get(node.op_type)
        constant = bool(node.input) and node.input[0] in self._tensors
        if node.op_type == "DequantizeLinear":
            if constant:
                return _Form.CONSTANT
            quantizer = self._quantized.get(node.input[0])
            constant = quantizer is not None and all(name in self._tensors for name in quantizer.input[1:])
            if constant and math.prod(self._tensors[node.input[1]].dims) == 1:
                return _Form.ROUND_TRIP
            return None
        if not constant or self._tensors[node.input[0]].data_type not in _HALVES:
            return None
        if _widens(node):
            return _Form.CONSTANT
        rows = [self._graph.node[index] for index in self._readers.get(node.output[0], [])]
        if node.op_type == "Gather" and rows and all(map(_widens, rows)):
            return _Form.NARROW_TABLE
        return None

    def rewrite(self, wanted: frozenset[_Form]) -> None:
        """Rewrite the forms of ``wanted``."""
        import onnx

        self.forms = {index: form for index, form in self.forms.items() if form in wanted}
        if not self.forms:
            return
        made: list[onnx.NodeProto] = []
        for index, node in enumerate(self._graph.node):
            for i, name in enumerate(node.input):
                node.input[i] = self._renamed.get(name, name)
            made += self._rewritten(node, self.forms.get(index))
        for value in self._graph.output:
            if value.name in self._renamed:
                made.append(onnx.helper.make_node("Identity", [self._renamed[value.name]], [value.name]))
        result = onnx.GraphProto()
        result.node.extend(made)
        tensors = {tensor.name: tensor for tensor in (*self._graph.initializer, *self._added.values())}
        result.initializer.extend(tensors[name] for name in sorted(tensors))
        for field in ("node", "initializer"):
            self._graph.ClearField(field)
            getattr(self._graph, field).extend(getattr(result, field))
        from assay.models.export.strip import remove_unused

        remove_unused(self._model)

    def _rewritten(self, node: onnx.NodeProto, form: _Form | None) -> list[onnx.NodeProto]:
        """What stands in the place of ``node``."""
        if form is _Form.ROUND_TRIP:
            return [self._clip(node)]
        if form is _Form.WIDENED_ROWS:
            self._renamed[node.output[0]] = node.input[0]
            return []
        if form is _Form.CONSTANT:
            self._renamed[node.output[0]] = self._constant(node)
            return []
        if form is _Form.NARROW_TABLE:
            node.input[0] = self._constant(node)
            return [node]
        if form is _Form.PRODUCT:
            return self._product(node)
        if form is _Form.TABLE:
            return [self._table(node)]
        return [node]

    def _clip(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """A round trip through integers without the rounding."""
        import onnx

        source = self._quantized[node.input[0]].input[0]
        scale, zero = self._array(node, 1), self._array(node, 2)
        assert scale is not None
        ends = np.iinfo(np.uint8 if zero is None else zero.dtype)
        middle = 0 if zero is None else int(zero.reshape(()))
        names = []
        for label, end in (("least", ends.min), ("largest", ends.max)):
            names.append(f"{node.output[0]}/{label}")
            self._add(names[-1], np.array((end - middle) * float(scale.reshape(())), np.float32))
        inputs = [self._renamed.get(source, source), *names]
        return onnx.helper.make_node(
            "Clip", inputs, [node.output[0]], name=node.name or f"{node.output[0]}/clip"
        )

    def _constant(self, node: onnx.NodeProto) -> str:
        """The initializer that the first input of ``node`` becomes."""
        source = str(node.input[0])
        free = all(index in self.forms for index in self._readers[source])
        name = source if free else str(node.output[0])
        if name not in self._added:
            values = self._array(node, 0)
            assert values is not None
            if node.op_type == "DequantizeLinear":
                values = self._linear(node, values)
            self._add(name, values)
        return name

    def _linear(self, node: onnx.NodeProto, codes: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """The value of a DequantizeLinear of constants."""
        scale, zero = self._array(node, 1), self._array(node, 2)
        assert scale is not None
        attributes = {item.name: int(item.i) for item in node.attribute}
        axis, size = attributes.get("axis", 1), attributes.get("block_size", 0)

        def spread(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if size:
                return np.take(np.repeat(array, size, axis), np.arange(codes.shape[axis]), axis)
            if array.size == 1:
                return array.reshape(())
            return array.reshape([-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)])

        whole = codes.astype(np.int32)
        if zero is not None:
            whole = whole - spread(zero).astype(np.int32)
        return (whole.astype(np.float32) * spread(scale).astype(np.float32)).astype(np.float32)

    def _product(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """MatMulNBits as MatMul with a float32 weight [inputs, outputs], and its bias as Add."""
        import onnx

        attributes = {item.name: int(item.i) for item in node.attribute}
        columns, rows, group = attributes["K"], attributes["N"], attributes["block_size"]
        bits = attributes.get("bits", 4)
        if bits not in (4, 8) or (len(node.input) > 4 and node.input[4]):
            raise _unknown(node)
        name = node.input[1]
        if name not in self._added:
            packed = self._array(node, 1)
            assert packed is not None
            codes = _unpacked(packed.reshape(rows, -1, group * bits // 8), bits, group)
            values = self._dequantized(node, codes, bits)[:, :columns]
            self._add(name, np.ascontiguousarray(values.T))
        bias = node.input[5] if len(node.input) > 5 else ""
        output = f"{node.output[0]}/product" if bias else node.output[0]
        made = [onnx.helper.make_node("MatMul", [node.input[0], name], [output], name=node.name)]
        if bias:
            label = f"{node.name}/bias"
            made.append(onnx.helper.make_node("Add", [output, bias], [node.output[0]], name=label))
        return made

    def _table(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """GatherBlockQuantized as Gather of a float32 table; its codes may be a product's, reshaped."""
        import onnx

        attributes = {item.name: int(item.i) for item in node.attribute}
        bits, group = attributes.get("bits", 4), attributes.get("block_size", 128)
        node.input[0] = self._flat.get(node.input[0], node.input[0])
        packed = self._array(node, 0)
        assert packed is not None
        if packed.dtype != np.uint8 or attributes.get("gather_axis", 0):
            raise _unknown(node)
        name = f"{node.input[0]}/rows" if len(self._readers[node.input[0]]) > 1 else node.input[0]
        if name not in self._added:
            packed = packed.reshape(packed.shape[0], -1)
            width = packed.shape[1] * 8 // bits
            padding = ((0, 0), (0, -width % group))
            codes = np.pad(_unpacked(packed, bits, width), padding).reshape(len(packed), -1, group)
            self._add(name, self._dequantized(node, codes, bits)[:, :width])
        inputs = [name, node.input[1]]
        return onnx.helper.make_node("Gather", inputs, list(node.output), name=node.name, axis=0)

    def _dequantized(
        self, node: onnx.NodeProto, codes: npt.NDArray[np.float32], bits: int
    ) -> npt.NDArray[np.float32]:
        """The values [rows, columns] of codes [rows, groups, size]."""
        rows, groups, _ = codes.shape
        scales, zeros = self._array(node, 2), self._array(node, 3)
        assert scales is not None
        if zeros is None:
            middle: npt.NDArray[np.float32] = np.full((rows, groups), 2 ** (bits - 1), np.float32)
        elif zeros.dtype == np.uint8:
            middle = _unpacked(zeros.reshape(rows, -1), bits, groups)
        else:
            middle = zeros.reshape(rows, groups).astype(np.float32)
        factor = scales.reshape(rows, groups, 1).astype(np.float32)
        return (factor * (codes - middle[..., None])).reshape(rows, -1)

    def _array(self, node: onnx.NodeProto, position: int) -> npt.NDArray[Any] | None:
        """A constant operand; None where it is left out. Raises ModelError where it is no constant."""
        import onnx

        if position >= len(node.input) or not node.input[position]:
            return None
        name = node.input[position]
        if name not in self._tensors:
            raise ModelError(
                f"The operand {name!r} of the node {node.name or node.output[0]!r} ({node.op_type}) is not a "
                "constant, so that its weights cannot be dequantized."
            )
        array: npt.NDArray[Any] = onnx.numpy_helper.to_array(self._tensors[name])
        return array

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        import onnx

        self._added[name] = onnx.numpy_helper.from_array(values.astype(np.float32), name)


def _widens(node: onnx.NodeProto) -> bool:
    """Whether a node is a Cast to float32."""
    return node.op_type == "Cast" and any(item.name == "to" and item.i == _FLOAT for item in node.attribute)


def _unpacked(array: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.float32]:
    """``count`` codes of ``bits`` along the last axis."""
    if bits == 8:
        return array[..., :count].astype(np.float32)
    both = np.stack([array & np.uint8(15), array >> np.uint8(4)], axis=-1)
    return both.reshape(*array.shape[:-1], -1)[..., :count].astype(np.float32)


def _unknown(node: onnx.NodeProto) -> ModelError:
    label = node.name or node.output[0]
    return ModelError(f"The node {label!r} ({node.op_type}) has a form that is not known.")
