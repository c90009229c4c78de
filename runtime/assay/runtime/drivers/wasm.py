"""The driver of launch plans over WebAssembly, in wasmtime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError, UsageError
from assay.runtime.bound_plan import BoundTensor, bind
from assay.runtime.drivers.wasm_module import WasmModule, WasmTensor
from assay.runtime.plan import Flavour, Place, Plan, decode_plan

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.artifact import Artifact
    from assay.runtime.manifest import Entry

__all__ = ["Wasm", "WasmCalls"]

Shapes = tuple[tuple[int, ...], ...]


class Wasm:
    """The WebAssembly module of one level with its plan and weights, ready to be called.

    Raises ArtifactError, CapacityError, and MissingDependencyError where wasmtime is not installed.
    """

    def __init__(self, artifact: Artifact, entry: Entry) -> None:
        if entry.plan is None:
            raise ArtifactError(f"{entry.library} has no launch plan.")
        weights = artifact.weights()
        self._calls = WasmCalls(
            decode_plan(artifact.read(entry.plan)),
            artifact.path(entry.library),
            [weights[name] for name in entry.weights],
        )

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``, computed by one thread, whatever ``threads`` says.

        Raises UsageError where there is an ``instrument``: there is no virtual machine to call it.
        """
        if instrument is not None:
            raise UsageError("The kernels of WebAssembly are not timed one by one.")
        return self._calls.call(arrays)

    def is_weight(self, tensor: Any) -> bool:
        """False: no tensor of this driver is given to anyone."""
        return False


class WasmCalls:
    """A plan over the module at ``library``, ready to be called.

    ``weights``: in the order of the plan; they are copied into the memory of the module. Raises ArtifactError
    for a plan of another flavour or other weights, CapacityError where they do not fit.
    """

    def __init__(self, plan: Plan, library: Path, weights: Sequence[npt.NDArray[Any]]) -> None:
        if plan.flavour is not Flavour.CPU:
            raise ArtifactError(f"The launch plan is for a {plan.flavour}, not for WebAssembly.")
        if len(weights) != len(plan.weights):
            raise ArtifactError(f"The launch plan takes {len(plan.weights)} weights, not {len(weights)}.")
        self._plan = plan
        self._module = WasmModule(library)
        self._weights = [self._kept(weight) for weight in weights]
        self._lock = threading.Lock()
        self._shapes: Shapes | None = None
        self._inputs: list[WasmTensor] = []
        self._outputs: list[WasmTensor] = []
        self._calls: list[Callable[[], None]] = []

    def call(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``; calls from several threads take turns.

        What kernels write into inputs is written back to the arrays. Raises ArtifactError where a kernel
        fails, CapacityError where memory does not suffice.
        """
        with self._lock:
            shapes = tuple(array.shape for array in arrays)
            if shapes != self._shapes:
                self._lay_out(shapes)
            for tensor, array in zip(self._inputs, arrays, strict=True):
                self._module.view(tensor)[...] = array
            for call in self._calls:
                call()
            for number in self._plan.written_inputs:
                arrays[number][...] = self._module.view(self._inputs[number])
            return [self._module.view(tensor).copy() for tensor in self._outputs]

    def _kept(self, weight: npt.NDArray[Any]) -> int:
        """The address of a copy of ``weight``."""
        address = self._module.keep(weight.nbytes)
        raw = np.ascontiguousarray(weight).reshape(-1).view(np.uint8)
        self._module.bytes_at(address, weight.nbytes)[:] = raw
        return address

    def _lay_out(self, shapes: Shapes) -> None:
        """Memory and calls for inputs of these shapes."""
        module, plan = self._module, self._plan
        self._shapes = None
        bound = bind(plan, shapes)
        module.release()
        places = {
            Place.WEIGHT: self._weights,
            Place.INPUT: [module.allocate(bound.tensors[number].nbytes) for number in plan.inputs],
            Place.STORAGE: [module.allocate(size) for size in bound.storages],
        }

        def tensor(each: BoundTensor) -> WasmTensor:
            return module.tensor(places[each.place][each.index] + each.offset, each.shape, each.dtype)

        tensors = [tensor(each) for each in bound.tensors]
        self._calls = [
            module.prepare(
                plan.kernels[step.kernel].name,
                [tensors[each] if isinstance(each, int) else each[1] for each in step.arguments],
            )
            for step in bound.steps
        ]
        self._inputs = [tensors[number] for number in plan.inputs]
        self._outputs = [tensors[number] for number in plan.outputs]
        # Last: a failure above leaves nothing that looks ready.
        self._shapes = shapes
