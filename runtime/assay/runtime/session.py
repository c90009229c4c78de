"""Running an artifact: NumPy arrays or DLPack tensors in, NumPy arrays out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from assay.errors import ArtifactError, InterfaceError
from assay.runtime.amx import request_tiles_for
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import available_cores
from assay.runtime.drivers.opening import open_driver
from assay.runtime.levels import choose
from assay.runtime.manifest import Execution, Input, Level, Manifest, Output, SymbolicSize
from assay.runtime.paged_call import check_paged_call

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.devices.device import DeviceInfo
    from assay.runtime.drivers.opening import Driver
    from assay.runtime.timing import KernelTimes

__all__ = ["DLPackTensor", "Model", "load"]


class DLPackTensor(Protocol):
    """A tensor of another library, torch's for one, that can be exchanged without a copy."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[int, int]: ...


_ATTEMPTS = 3  # when the artifact is replaced, atomically, while it is being loaded

Tensor: TypeAlias = "npt.NDArray[Any] | DLPackTensor"
Shapes: TypeAlias = tuple[tuple[int, ...], ...]
"""The shapes of all inputs, in the order of the interface."""


def load(
    path: Path | str,
    *,
    threads: int | None = None,
    verify: bool = True,
    level: str | None = None,
    device: str | None = None,
) -> Model:
    """Load the artifact at ``path``, a directory or a one-file artifact.

    ``threads`` is the number of threads of one run (default: the physical cores that this process may use).
    With ``verify``, the default, the digest of every file is checked before any code is loaded. Of several
    levels the most capable one that this CPU has is taken, unless ``level``, or else the environment variable
    ``ASSAY_LEVEL``, names one. ``device`` says where to run: ``cpu``, an API such as ``cuda``, or ``cuda:1``,
    which is then taken or refused; by default (``auto``) a device that has the code and the memory comes
    before the CPU, and ``Model.passed_over`` says why others did not.

    Raises ArtifactError for an artifact that is damaged or incomplete, ArtifactVersionError for one of
    another schema, CpuFeatureError for one that needs instructions that this CPU lacks, and UnknownNameError
    for a level that the artifact does not have; DeviceError and CapacityError for a device that is asked for
    and cannot run the model.
    """
    for _ in range(_ATTEMPTS):
        before = _identity(path)
        try:
            model = _load(path, threads, verify, level, device)
        except ArtifactError:
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return model
    raise ArtifactError(f"{path} is replaced again and again while it is being loaded.")


def _load(path: Path | str, threads: int | None, verify: bool, name: str | None, device: str | None) -> Model:
    artifact = open_artifact(path, verify=verify)
    choice = choose(artifact.manifest, name, device)
    level = choice.level
    request_tiles_for(level.target.features)
    special = {
        _shapes_at(artifact.manifest.inputs, each.sizes): partial(
            open_driver, artifact, each.entry, choice.device
        )
        for each in level.specializations
    }
    driver = open_driver(artifact, level.entry, choice.device)
    return Model(
        artifact.manifest,
        level,
        driver,
        special,
        threads=threads,
        device=choice.device,
        passed_over=choice.passed_over,
    )


def _identity(path: Path | str) -> tuple[int, int] | None:
    """What tells an artifact from one that took its place under the same name."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Model:
    """A loaded artifact; made by ``load``. May be used from several threads: runs take turns.

    ``level`` is what was chosen of the levels that the artifact has, ``device`` what runs it (None: the CPU),
    ``passed_over`` why devices that would come before did not. ``special`` makes, when inputs of those
    shapes first come, the drivers of code for them.
    """

    def __init__(
        self,
        manifest: Manifest,
        level: Level,
        driver: Driver,
        special: Mapping[Shapes, Callable[[], Driver]] | None = None,
        *,
        threads: int | None = None,
        device: DeviceInfo | None = None,
        passed_over: tuple[str, ...] = (),
    ) -> None:
        self.manifest = manifest
        self.level = level
        self.device = device
        self.passed_over = passed_over
        self._driver = driver
        self._special = dict(special or {})
        self._drivers: dict[Shapes, Driver] = {}
        self._lock = threading.Lock()
        self._dtypes = [(item.name, np.dtype(item.dtype)) for item in manifest.inputs]
        self._known_shapes: Shapes | None = None
        self.threads = available_cores() if threads is None else threads

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Name, dtype and shape of each input."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Name, dtype and shape of each output."""
        return self.manifest.outputs

    @property
    def executed(self) -> bool:
        """Whether this code was run and compared when it was built, on a CPU or under an emulator."""
        return self.level.executed is not Execution.NEVER

    @property
    def threads(self) -> int:
        """Threads of one run, the calling one included; may be set."""
        return self._threads

    @threads.setter
    def threads(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"threads must be at least 1, not {count}")
        self._threads = count

    def __repr__(self) -> str:
        return f"<Model {self.manifest.model.name} for {self.level.target.name}, {self.threads} threads>"

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
        """Outputs by name for ``inputs`` by name.

        Inputs are NumPy arrays or tensors that speak DLPack (on the CPU). They are used where they are when
        they are contiguous and 64-byte aligned, and copied otherwise; outputs are not copied, and are the
        caller's to keep. The cache of a decoder is written in place. Raises InterfaceError, naming the input,
        when a name, dtype or shape does not fit.
        """
        arrays = self._checked(inputs)
        self._check_paging(arrays)
        outputs = self.manifest.outputs
        results = self._driver_for(arrays).call(arrays, self._threads)
        if len(results) != len(outputs):
            raise ArtifactError(
                f"The library returned {len(results)} outputs; the manifest names {len(outputs)}."
            )
        return {output.name: result for output, result in zip(outputs, results, strict=True)}

    def _checked(self, inputs: Mapping[str, Tensor]) -> list[npt.NDArray[Any]]:
        """Arrays in order, as ``check_inputs`` gives them; shapes that passed last time pass at once."""
        known = self._known_shapes
        if known is not None and len(inputs) == len(known):
            arrays = []
            for (name, dtype), shape in zip(self._dtypes, known, strict=True):
                array = inputs.get(name)
                if type(array) is not np.ndarray or array.shape != shape or array.dtype != dtype:
                    break
                arrays.append(array)
            else:
                return arrays
        checked = check_inputs(self.inputs, inputs)
        self._known_shapes = tuple(array.shape for array in checked)
        return checked

    def _check_paging(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Raise InterfaceError for a call of a decoder that would touch what is not its own."""
        if self.manifest.decoder is not None:
            names = (item.name for item in self.inputs)
            check_paged_call(self.manifest.decoder, dict(zip(names, arrays, strict=True)))

    def kernel_times(self, inputs: Mapping[str, Tensor], *, repeats: int = 10) -> KernelTimes:
        """Seconds of every kernel in ``repeats`` runs on ``inputs``, beside as many runs unobserved.

        Raises InterfaceError as ``run`` does.
        """
        from assay.runtime.timing import time_kernels

        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {repeats}")
        arrays = check_inputs(self.inputs, inputs)
        self._check_paging(arrays)
        return time_kernels(self._driver_for(arrays), arrays, self._threads, repeats)

    def _driver_for(self, arrays: Sequence[npt.NDArray[Any]]) -> Driver:
        """The driver of the code for inputs of these sizes: special code where there is some."""
        if not self._special:
            return self._driver
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self._special:
            return self._driver
        with self._lock:
            if shapes not in self._drivers:
                self._drivers[shapes] = self._special[shapes]()
            return self._drivers[shapes]


def _shapes_at(interface: tuple[Input, ...], sizes: Mapping[str, int]) -> Shapes:
    """The shapes of the inputs where the symbolic dimensions have these sizes."""
    return tuple(
        tuple(dim if isinstance(dim, int) else sizes[dim.name] for dim in item.shape) for item in interface
    )


def check_inputs(interface: tuple[Input, ...], inputs: Mapping[str, Tensor]) -> list[npt.NDArray[Any]]:
    """Arrays in the order of ``interface``; raises InterfaceError for what does not fit it."""
    names = [spec.name for spec in interface]
    for name in inputs:
        if name not in names:
            import difflib  # takes milliseconds, and few need it

            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Inputs: {', '.join(names) or 'none'}."
            raise InterfaceError(f"The model has no input {name!r}.", hint=hint)
    sizes: dict[str, tuple[int, str]] = {}
    arrays: list[npt.NDArray[Any]] = []
    for spec in interface:
        if spec.name not in inputs:
            raise InterfaceError(f"Input {spec.name!r} is missing.", hint=f"Expected {_describe(spec)}.")
        array = _as_array(spec, inputs[spec.name])
        _check(spec, array, sizes)
        arrays.append(array)
    return arrays


def _as_array(spec: Input, value: Tensor) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value)
    if not hasattr(value, "__dlpack__"):
        raise InterfaceError(
            f"Input {spec.name!r} is a {type(value).__name__}, not an array.",
            hint=f"Expected {_describe(spec)}, as a NumPy array or a tensor that speaks DLPack.",
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InterfaceError(
            f"Input {spec.name!r}: its tensor cannot be exchanged: {error}",
            hint="Pass a dense tensor on the CPU that needs no gradient.",
        ) from error


def _check(spec: Input, array: npt.NDArray[Any], sizes: dict[str, tuple[int, str]]) -> None:
    """Compare one array with its place in the interface; ``sizes`` collects the symbolic dimensions."""
    problem = None
    if array.dtype != spec.dtype:
        problem = f" has dtype {array.dtype}, expected {spec.dtype}"
    elif array.ndim != len(spec.shape):
        problem = f" has {array.ndim} dimensions, expected {len(spec.shape)}"
    else:
        for axis, (dim, size) in enumerate(zip(spec.shape, array.shape, strict=True)):
            problem = _dim_problem(dim, size, sizes, spec.name)
            if problem:
                problem = f", dimension {axis}: {problem}"
                break
    if problem:
        found = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
        raise InterfaceError(
            f"Input {spec.name!r}{problem}.", hint=f"Expected {_describe(spec)}, got {found}."
        )


def _dim_problem(
    dim: int | SymbolicSize, size: int, sizes: dict[str, tuple[int, str]], input_name: str
) -> str | None:
    if isinstance(dim, int):
        return None if size == dim else f"size {size}, expected {dim}"
    if not dim.minimum <= size <= dim.maximum:
        return f"{dim.name} is {size}, expected {dim.minimum} to {dim.maximum}"
    first, where = sizes.setdefault(dim.name, (size, input_name))
    return None if first == size else f"{dim.name} is {size}, but {first} in input {where!r}"


def _describe(spec: Input) -> str:
    """The interface of one input in words: ``float32[batch, 3, 224, 224] with batch from 1 to 8``."""
    dims = [dim if isinstance(dim, int) else dim.name for dim in spec.shape]
    ranges = [
        f"{dim.name} from {dim.minimum} to {dim.maximum}" for dim in spec.shape if not isinstance(dim, int)
    ]
    text = f"{spec.dtype}[{', '.join(map(str, dims))}]"
    return f"{text} with {', '.join(ranges)}" if ranges else text
