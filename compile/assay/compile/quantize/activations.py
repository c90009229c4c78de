"""What activations a model has: with and without rounding, and at the inputs of its products."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.compile.quantize.dequantize import drop_round_trips

if TYPE_CHECKING:
    import numpy.typing as npt
    import onnx

    from assay.models.spec import Array

__all__ = ["hessians", "magnitudes", "observed", "without_rounding"]


def without_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the same weights that rounds no activation: products in float32, no round trips."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in copy.graph.node:
        if node.op_type == "MatMulNBits":
            for attribute in node.attribute:
                if attribute.name == "accuracy_level":
                    attribute.i = 0
    return drop_round_trips(copy)


def observed(
    model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """For each sample, the values ``names`` inside ``model`` as ONNX Runtime computes them.

    Raises ModelError where ONNX Runtime refuses the model or the samples.
    """
    import tempfile
    from pathlib import Path

    import onnx

    from assay.compile.verify import open_reference, run_reference
    from assay.models.export.weights import save

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    declared = {value.name for value in watched.graph.input}
    del watched.graph.output[:]
    wanted = [name for name in dict.fromkeys(names) if name not in declared]
    if not wanted:
        yield from ({name: np.asarray(sample[name]) for name in names} for sample in samples)
        return
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    with tempfile.TemporaryDirectory(prefix="assay-observe-") as folder:
        path = Path(folder) / "observed.onnx"
        save(watched, path, "observed.bin")
        session = open_reference(path)
        for sample in samples:
            found = run_reference(session, sample)
            yield {name: found[name] if name in found else np.asarray(sample[name]) for name in names}


def hessians(
    model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> dict[str, npt.NDArray[np.float64]]:
    """The sum of x x^T over the rows x of each value (along its last axis), by name: [columns, columns]."""
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for values in observed(model, names, samples):
        for name, array in values.items():
            rows = array.reshape(-1, array.shape[-1]).astype(np.float32)
            product = (rows.T @ rows).astype(np.float64)
            sums[name] = sums[name] + product if name in sums else product
    return sums


def magnitudes(
    model: onnx.ModelProto, names: Sequence[str], samples: Sequence[Mapping[str, Array]]
) -> dict[str, npt.NDArray[np.float32]]:
    """The largest magnitude of each column (along the last axis) of each value, by name."""
    found: dict[str, npt.NDArray[np.float32]] = {}
    for values in observed(model, names, samples):
        for name, array in values.items():
            largest = np.abs(array.reshape(-1, array.shape[-1])).max(axis=0, initial=0)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return found
