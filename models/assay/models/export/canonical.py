"""Export of a model to canonical ONNX: the one form that everything downstream reads."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError, StorageError
from assay.models.export import functions, interface
from assay.models.export.agreement import check_agreement
from assay.models.export.interface import OutputSpec
from assay.models.export.optimize import optimize
from assay.models.export.qdq import to_qdq
from assay.models.export.rewrite import may_rewrite, rewrite
from assay.models.export.safe_load import load_safely
from assay.models.export.strip import remove_unused, strip_provenance
from assay.models.export.weights import INLINE_BYTES, save, weight_bytes, without_weights
from assay.models.spec import ModelSpec
from assay.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import onnx

__all__ = ["CanonicalModel", "canonicalize", "export_canonical"]

_FILE = "canonical.onnx"
_DATA_FILE = "canonical.bin"


@dataclass(frozen=True, kw_only=True)
class CanonicalModel:
    """A model in canonical form on disk.

    ``path`` is the ONNX file, with external data beside it where the weights are over 64 MiB. ``spec`` has
    the inputs in the graph's order. The digests, "sha256:…", are those of what the provider gave and of the
    file at ``path`` (with its external data).
    """

    spec: ModelSpec
    path: Path
    source_digest: str
    digest: str
    outputs: tuple[OutputSpec, ...]


def export_canonical(spec: ModelSpec, folder: Path, *, progress: Progress | None = None) -> CanonicalModel:
    """Write ``spec`` as canonical ONNX into ``folder``, which is made if need be; the same bytes every time.

    Raises ModelError (or its kinds) for a model that is not valid, InterfaceError when the graph and the
    specification disagree, StorageError when ``folder`` cannot be written. An error leaves nothing behind.
    """
    progress = progress or SilentProgress()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as scratch_name:
            scratch = Path(scratch_name)
            with progress.step(f"get {spec.name}"):
                source = spec.provider.onnx_path(scratch)
            with progress.step("load ONNX"):
                loaded = load_safely(source)
            model = canonicalize(loaded.model, spec, scratch, progress=progress)
            with progress.step("write canonical ONNX"):
                digest = _write(model, folder, scratch)
    except OSError as error:
        raise StorageError(f"The export to {str(folder)!r} failed: {error.strerror or error}.") from error
    found = {item.name: item for item in spec.inputs}
    return CanonicalModel(
        spec=replace(spec, inputs=tuple(found[value.name] for value in model.graph.input)),
        path=folder / _FILE,
        source_digest=loaded.digest,
        digest=digest,
        outputs=interface.read_outputs(model.graph),
    )


def canonicalize(
    model: onnx.ModelProto, spec: ModelSpec, scratch: Path, *, progress: Progress | None = None
) -> onnx.ModelProto:
    """The canonical form of ``model``, which is changed on the way; ``scratch`` takes temporary files.

    Checked; operators on integers as QDQ; inputs bound to ``spec``; functions inlined; optimised by ONNX
    Runtime at its basic level; rewritten where another form compiles better; free of whatever does not change
    the result; initializers in the order of their names. Where anything changed the graph but ONNX Runtime
    and the step to QDQ (which may round a tie to the other side), its outputs are compared.

    A decoder's graph is written in canonical form already and keeps its nodes: ONNX Runtime would fold the
    widening of 16-bit weights and the shared table of embeddings into copies.
    """
    progress = progress or SilentProgress()
    if spec.decoder is not None:
        with progress.step("check ONNX"):
            return _canonical_decoder(model, spec)
    with progress.step("check ONNX"):
        _check(model)
        functions.check_operators(model)
        to_qdq(model)
        interface.drop_initializer_inputs(model)
        interface.bind_inputs(model.graph, spec.inputs)
        strip_provenance(model)
    changes = functions.needs_inlining(model)
    reference = scratch / "reference.onnx"
    if changes or may_rewrite(model):
        save(model, reference, "reference.bin")
    if changes:
        with progress.step("inline functions"):
            model = functions.inline(model)
    with progress.step("fold and simplify"):
        model = optimize(model, scratch)
        strip_provenance(model)
        changes |= rewrite(model, _ranks(_infer_shapes(model).graph))
        remove_unused(model)
        model.graph.initializer.sort(key=lambda tensor: str(tensor.name))
        interface.declare_outputs(model.graph, _infer_shapes(model).graph)
        _check(model)
    if changes:
        with progress.step("compare with the source"):
            changed = scratch / "changed.onnx"
            save(model, changed, "changed.bin")
            check_agreement(reference, changed, spec)
    return model


def _canonical_decoder(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    _check(model)
    functions.check_operators(model)
    interface.bind_inputs(model.graph, spec.inputs)
    strip_provenance(model)
    remove_unused(model)
    model.graph.initializer.sort(key=lambda tensor: str(tensor.name))
    return model


def _check(model: onnx.ModelProto) -> None:
    import onnx

    # The checker makes copies of what it checks; ONNX Runtime checks the weights when it loads them.
    light = without_weights(model) if weight_bytes(model) > INLINE_BYTES else model
    try:
        onnx.checker.check_model(light)
    except onnx.checker.ValidationError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ModelError(f"The model does not pass the ONNX checker: {reason}") from error


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with inferred shapes and without its large weights; as far as inference goes."""
    import onnx

    light = without_weights(model)
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return light


def _ranks(graph: onnx.GraphProto) -> dict[str, int]:
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }


def _write(model: onnx.ModelProto, folder: Path, scratch: Path) -> str:
    """Write ``model`` atomically into ``folder``; the digest of the file, and of the external data if any."""
    digests = save(model, scratch / _FILE, _DATA_FILE)
    # The data first: the graph is what makes the export count as there.
    for name in sorted(digests, reverse=True, key=_FILE.__ne__):
        (scratch / name).replace(folder / name)
    if len(digests) == 1:
        return f"sha256:{digests[_FILE]}"
    return f"sha256:{hashlib.sha256(''.join(digests.values()).encode()).hexdigest()}"
