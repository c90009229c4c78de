"""Which operator goes wrong first: the model compiled again with its intermediate results as outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from assay.compile.profiles import profiles
from assay.compile.targets import Target
from assay.errors import AssayError, VerificationError

if TYPE_CHECKING:
    from assay.compile.verify import Case
    from assay.models.export import CanonicalModel

__all__ = ["first_divergence"]

# More outputs make the search slow and change nothing in what it finds first.
_MOST_OUTPUTS = 256


def first_divergence(canonical: CanonicalModel, cases: list[Case], target: Target) -> str:
    """One sentence: the first operator whose result differs from ONNX Runtime's, or why none is named."""
    import onnx

    model = onnx.load(canonical.path)
    produced = _producers(model)
    if not produced:
        return "No intermediate result could be compared."
    names = list(produced)[:_MOST_OUTPUTS]
    known = {output.name for output in model.graph.output}
    inferred = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    extra = [inferred[name] for name in names if name in inferred and name not in known]
    model.graph.output.extend(extra)
    try:
        return _search(canonical, cases, target, model, produced)
    except AssayError as error:
        return f"The operator that diverges first could not be found: {error.message}"


def _producers(model: Any) -> dict[str, Any]:
    """Nodes by the name of their results, in execution order."""
    return {output: node for node in model.graph.node for output in node.output if output}


def _search(
    canonical: CanonicalModel, cases: list[Case], target: Target, model: Any, produced: dict[str, Any]
) -> str:
    from assay.compile.lower import lower_canonical
    from assay.compile.tvm_import import import_tvm
    from assay.compile.verify import compare, reference_outputs
    from assay.progress import SilentProgress

    tvm = import_tvm()
    lowered = lower_canonical(canonical, target, profiles()["debug"], SilentProgress(), model)
    machine = tvm.relax.VirtualMachine(lowered.executable, tvm.cpu())
    weights = [tvm.runtime.tensor(array) for array in lowered.weights.values()]
    for case in cases:
        expected = reference_outputs(model.SerializeToString(), [case.inputs])[0]
        inputs = [tvm.runtime.tensor(array) for array in case.inputs.values()]
        results = machine["main"](*inputs, *([tuple(weights)] if weights else []))
        arrays = [result.numpy() for result in (results if len(expected) > 1 else [results])]
        actual = dict(zip((o.name for o in model.graph.output), arrays, strict=True))
        for name, node in produced.items():
            if name not in actual:
                continue
            try:
                compare(name, actual[name], expected[name], case.sizes, canonical.spec.tolerance)
            except VerificationError:
                return f"The first operator that diverges is {node.op_type} (node {node.name or name!r})."
    return "Compiled without fusion no operator diverges: the fault is in how operators are fused."
