"""Export of a model to canonical ONNX: the one form that everything downstream reads."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import ModelError, StorageError
from assay.models.export import functions, interface
from assay.models.export.interface import OutputSpec
from assay.models.export.optimize import optimize
from assay.models.export.safe_load import load_safely
from assay.models.export.strip import remove_unused, strip_provenance
from assay.models.spec import ModelSpec
from assay.progress import Progress, SilentProgress

if TYPE_CHECKING:
    import onnx

__all__ = ["CanonicalModel", "canonicalize", "export_canonical"]

_FILE = "canonical.onnx"
_DATA_FILE = "canonical.bin"
_INLINE_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class CanonicalModel:
    """A model in canonical form on disk.

    ``path`` is the ONNX file, with external data beside it when it is over 1 GiB. ``spec`` has the interface as
    found in the graph, in the graph's order. The digests, "sha256:…", are those of what the provider gave and of
    the canonical form.
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
            model = canonicalize(loaded.model, spec, progress=progress)
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
    model: onnx.ModelProto, spec: ModelSpec, *, progress: Progress | None = None
) -> onnx.ModelProto:
    """The canonical form of ``model``, which is changed on the way.

    Checked; inputs bound to ``spec``; functions inlined; optimised by ONNX Runtime at its basic level; free of
    whatever does not change the result; initializers in the order of their names.
    """
    progress = progress or SilentProgress()
    with progress.step("check ONNX"):
        _check(model)
        functions.check_operators(model)
        interface.drop_initializer_inputs(model)
        interface.bind_inputs(model.graph, spec.inputs)
    with progress.step("inline functions"):
        strip_provenance(model)
        model = functions.inline(model)
    with progress.step("fold and simplify"):
        model = optimize(model)
    with progress.step("normalise"):
        interface.drop_initializer_inputs(model)
        strip_provenance(model)
        remove_unused(model)
        _sort_initializers(model)
        interface.declare_outputs(model.graph, _infer_shapes(model).graph)
        _check(model)
    return model


def _check(model: onnx.ModelProto) -> None:
    import onnx

    if model.ByteSize() > _INLINE_BYTES:
        model = _without_weights(model)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise ModelError(f"The model does not pass the ONNX checker: {reason}") from error


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with inferred shapes and without its large weights; as far as inference goes."""
    import onnx

    light = _without_weights(model)
    try:
        return onnx.shape_inference.infer_shapes(light, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return light


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large initializers are inputs; small ones may hold shapes."""
    import onnx

    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= 4096:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light


def _sort_initializers(model: onnx.ModelProto) -> None:
    tensors = sorted(model.graph.initializer, key=lambda tensor: str(tensor.name))
    copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)


def _write(model: onnx.ModelProto, folder: Path, scratch: Path) -> str:
    """Write ``model`` atomically into ``folder``; its digest covers the external data too."""
    import onnx

    digest = hashlib.sha256()
    names = [_FILE]
    if model.ByteSize() > _INLINE_BYTES:
        onnx.save_model(
            model, scratch / _FILE, save_as_external_data=True, location=_DATA_FILE, size_threshold=1024
        )
        names.insert(0, _DATA_FILE)
    else:
        (scratch / _FILE).write_bytes(model.SerializeToString(deterministic=True))
    for name in names:
        with (scratch / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    if names == [_FILE]:
        with (scratch / _FILE).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[assignment]
    # The data first: the graph is what makes the export count as there.
    for name in names:
        (scratch / name).replace(folder / name)
    return f"sha256:{digest.hexdigest()}"
