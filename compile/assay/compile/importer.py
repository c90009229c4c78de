"""From canonical ONNX to a Relax module, with an error that names the operator that does not go."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from assay.compile.tvm_import import import_tvm
from assay.errors import UnsupportedOperatorError

if TYPE_CHECKING:
    import onnx

__all__ = ["import_onnx"]

# TVM translates these, and then sorts or counts in a library that is not libtvm_runtime.
_NEED_MORE_RUNTIME = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})

_HINT = (
    "Replace the operator in the model by others, or ask for it: "
    "an issue with the smallest model that shows it helps most."
)


def import_onnx(model: onnx.ModelProto) -> Any:
    """A Relax module whose ``main`` takes the graph's inputs in order and holds its weights as constants.

    Raises UnsupportedOperatorError naming the operator and its node.
    """
    import_tvm()
    from tvm.relax.frontend.onnx import from_onnx, onnx_frontend

    from assay.compile.converters import CONVERTERS

    known = {*onnx_frontend._get_convert_map(), *CONVERTERS}
    for node in model.graph.node:
        if node.op_type in _NEED_MORE_RUNTIME:
            reason = "its kernel needs a part of TVM's runtime that artifacts do not carry"
        elif node.op_type not in known and node.op_type not in ("If", "Constant"):
            reason = "it has no translation"
        else:
            continue
        raise _unsupported(node.op_type, node.name or node.output[0], reason)
    with _hooked(onnx_frontend.ONNXGraphImporter) as current, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return from_onnx(model, sanitize_input_names=True)
        except Exception as error:
            # Whatever a converter raises, of whatever type, the user's question is which operator.
            if not current:
                raise UnsupportedOperatorError(
                    f"The model cannot be translated: {_first_line(error)}", hint=_HINT
                ) from error
            raise _unsupported(current[0], current[1], _first_line(error)) from error


def _unsupported(operator: str, node: str, reason: str) -> UnsupportedOperatorError:
    return UnsupportedOperatorError(
        f"The operator {operator} (node {node!r}) cannot be compiled: {reason}.", hint=_HINT
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__


@contextlib.contextmanager
def _hooked(importer: Any) -> Iterator[list[str]]:
    """Note which operator the importer is at, which its errors do not say, and put our converters first."""
    from assay.compile.converters import CONVERTERS

    current: list[str] = []
    original, check = importer._convert_operator, importer._check_for_unsupported_ops

    def convert(self: Any, name: str, inputs: Any, attributes: Any, opset: int) -> Any:
        current[:] = [name, str(attributes.get("tvm_custom", {}).get("name", "?"))]
        ours = CONVERTERS.get(name)
        result = ours(self.bb, inputs, attributes, opset) if ours else None
        if result is not None:
            return self.bb.normalize(result)
        return original(self, name, inputs, attributes, opset)

    importer._convert_operator = convert
    # It knows only TVM's own translations; import_onnx has looked at the operators.
    importer._check_for_unsupported_ops = lambda self, graph: None
    try:
        yield current
    finally:
        importer._convert_operator = original
        importer._check_for_unsupported_ops = check
