"""The driver of launch plans on a device: uploads, launches, downloads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.errors import ArtifactError, CapacityError, InterfaceError, UsageError
from assay.runtime.bound_plan import BoundPlan, Shape, bind
from assay.runtime.device_code import DeviceCode, decode_device_code
from assay.runtime.devices import device_apis
from assay.runtime.devices.device import Buffer, Device, DeviceInfo, Launch, Program
from assay.runtime.devices.selection import choose_device
from assay.runtime.plan import ITEM_BYTES, Flavour, Place, Plan, decode_plan

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.artifact import Artifact
    from assay.runtime.manifest import Entry

__all__ = ["DeviceCalls", "PlanOnDevice", "read_device_code"]

_MOST_BOUND = 4  # sets of input shapes whose memory and launches are kept


class _Prepared:
    """Memory and launches at given shapes of the inputs."""

    def __init__(
        self,
        bound: BoundPlan,
        device: Device,
        program: Program,
        weights: Sequence[Buffer],
        kept: Mapping[int, Buffer],
    ) -> None:
        self.bound = bound
        self.device = device
        self.own: list[Buffer] = []
        plan = bound.plan
        try:
            self.storages = [self._allocate(size) for size in _used(bound)]
            self.inputs = [
                kept[i] if i in kept else self._allocate(bound.tensors[number].nbytes)
                for i, number in enumerate(plan.inputs)
            ]
            self.buffers = {Place.STORAGE: self.storages, Place.INPUT: self.inputs, Place.WEIGHT: weights}
            self.recording = device.record(program, [self._launch(i) for i in range(len(bound.steps))])
        except BaseException:
            self.free()
            raise

    def free(self) -> None:
        """Give the memory back."""
        for buffer in self.own:
            self.device.free(buffer)
        self.own = []

    def buffer(self, number: int) -> Buffer:
        """The memory that a tensor lies in, whose start it must be at."""
        tensor = self.bound.tensors[number]
        if tensor.offset:
            raise ArtifactError("The launch plan is damaged: a tensor starts inside the memory of a device.")
        return self.buffers[tensor.place][tensor.index]

    def _allocate(self, nbytes: int) -> Buffer:
        buffer = self.device.allocate(-(-max(1, nbytes) // 4) * 4)
        self.own.append(buffer)
        return buffer

    def _launch(self, number: int) -> Launch:
        step = self.bound.steps[number]
        x, y, z = step.grid
        arguments = [self.buffer(each) if isinstance(each, int) else each[1] for each in step.arguments]
        return Launch(kernel=step.kernel, arguments=tuple(arguments), grid=(x, y, z))


def _used(bound: BoundPlan) -> list[int]:
    """Bytes of each storage that its tensors take at these shapes; plans have room for the largest."""
    used = [0] * len(bound.storages)
    for tensor in bound.tensors:
        if tensor.place is Place.STORAGE:
            used[tensor.index] = max(used[tensor.index], tensor.offset + tensor.nbytes)
    return used


class DeviceCalls:
    """A plan on a device, ready to be called; weights are uploaded when it is made.

    ``files``: source or code of the kernels by name. ``weights``: contiguous, in the order of the plan.
    ``dtypes``: of the outputs as the manifest has them; those of the plan may be narrower, where the device
    has no such memory, and so may those of the inputs. Raises ArtifactError for a plan of another flavour or
    other weights, DeviceError and CapacityError where the device refuses.
    """

    def __init__(
        self,
        plan: Plan,
        device: Device,
        files: Mapping[str, bytes],
        weights: Sequence[npt.NDArray[Any]],
        dtypes: Sequence[str],
    ) -> None:
        if plan.flavour is not Flavour.DEVICE:
            raise ArtifactError(f"The launch plan is for the {plan.flavour}, not for a device.")
        if len(weights) != len(plan.weights) or len(dtypes) != len(plan.outputs):
            raise ArtifactError(
                "The launch plan takes other weights or gives other outputs than the manifest."
            )
        self.device = device
        self._plan, self._dtypes = plan, [np.dtype(each) for each in dtypes]
        self._program = device.compile(plan.kernels, files)
        self._weights = [self._uploaded(array) for array in weights]
        self._host_weights = list(weights)
        self._prepared: dict[tuple[Shape, ...], _Prepared] = {}
        self._kept: dict[int, Buffer] = {}
        self._lock = threading.Lock()

    def call(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``; those that the plan calls written hold afterwards what kernels wrote.

        Calls from several threads take turns. Raises DeviceError and CapacityError.
        """
        with self._lock:
            prepared = self._upload(arrays)
            prepared.recording.run()
            outputs = [self._download(prepared, number) for number in self._plan.outputs]
            for index in self._plan.written_inputs:
                if index in self._kept:
                    continue
                np.copyto(arrays[index], self._download(prepared, self._plan.inputs[index]), casting="unsafe")
        return [output.astype(dtype, copy=False) for output, dtype in zip(outputs, self._dtypes, strict=True)]

    def keep(self, arrays: Mapping[int, npt.NDArray[Any]]) -> None:
        """Leave inputs, by their position, on the device: copied there now, and by no call from now on.

        Calls take for them arrays of the same shapes, whose elements they neither read nor write. Raises
        CapacityError, and UsageError for inputs that are kept already.
        """
        with self._lock:
            for index, array in arrays.items():
                if index in self._kept:
                    raise UsageError(f"Input number {index} lies on the device already.")
                stored = _narrowed(array, self._input_dtype(index), index)
                buffer = self.device.allocate(max(4, stored.nbytes))
                self._kept[index] = buffer
                self.device.upload(buffer, stored)
            self._free_prepared()

    def fetch(self, index: int, array: npt.NDArray[Any]) -> None:
        """Copy the input at ``index``, which is kept, from the device into ``array`` of its shape."""
        with self._lock:
            stored = np.empty(array.shape, self._input_dtype(index))
            room = np.empty(-(-stored.nbytes // 4) * 4, np.uint8)
            self.device.download(self._kept[index], room)
            np.copyto(array, room[: stored.nbytes].view(stored.dtype).reshape(array.shape), casting="unsafe")

    def store(self, index: int, array: npt.NDArray[Any]) -> None:
        """Copy ``array`` of its shape to the input at ``index``, which is kept on the device."""
        with self._lock:
            self.device.upload(self._kept[index], _narrowed(array, self._input_dtype(index), index))

    def times(self, arrays: Sequence[npt.NDArray[Any]]) -> list[tuple[str, float]]:
        """The kernel and the seconds of every launch of one run, each by itself."""
        with self._lock:
            prepared = self._upload(arrays)
            seconds = prepared.recording.times()
        names = [self._plan.kernels[step.kernel].name for step in self._plan.steps]
        return list(zip(names, seconds, strict=True))

    def close(self) -> None:
        """Give back the device's memory; nothing may be called after this."""
        with self._lock:
            self._free_prepared()
            for buffer in [*self._weights, *self._kept.values()]:
                self.device.free(buffer)
            self._weights, self._kept = [], {}

    def _free_prepared(self) -> None:
        for prepared in self._prepared.values():
            prepared.free()
        self._prepared = {}

    def _input_dtype(self, index: int) -> np.dtype[Any]:
        return numpy_dtype(self._plan.tensors[self._plan.inputs[index]].dtype)

    def _upload(self, arrays: Sequence[npt.NDArray[Any]]) -> _Prepared:
        prepared = self._ready(tuple(array.shape for array in arrays))
        for index, (array, buffer) in enumerate(zip(arrays, prepared.inputs, strict=True)):
            if index not in self._kept:
                self.device.upload(buffer, _narrowed(array, self._input_dtype(index), index))
        return prepared

    def _ready(self, shapes: tuple[Shape, ...]) -> _Prepared:
        prepared = self._prepared.pop(shapes, None)
        if prepared is None:
            bound = bind(self._plan, shapes)
            while len(self._prepared) >= _MOST_BOUND:
                self._prepared.pop(next(iter(self._prepared))).free()
            try:
                prepared = _Prepared(bound, self.device, self._program, self._weights, self._kept)
            except CapacityError:
                if not self._prepared:
                    raise
                self._free_prepared()
                prepared = _Prepared(bound, self.device, self._program, self._weights, self._kept)
        self._prepared[shapes] = prepared  # the one used last comes last
        return prepared

    def _uploaded(self, array: npt.NDArray[Any]) -> Buffer:
        padded = -(-max(1, array.nbytes) // 4) * 4
        buffer = self.device.allocate(padded)
        if array.nbytes % 4:
            whole = np.zeros(padded, np.uint8)
            whole[: array.nbytes] = array.reshape(-1).view(np.uint8)
            array = whole
        self.device.upload(buffer, np.ascontiguousarray(array))
        return buffer

    def _download(self, prepared: _Prepared, number: int) -> npt.NDArray[Any]:
        tensor = prepared.bound.tensors[number]
        room = -(-tensor.nbytes // 4) * 4
        memory = np.empty(room, np.uint8)
        self.device.download(prepared.buffer(number), memory)
        return memory[: tensor.nbytes].view(numpy_dtype(tensor.dtype)).reshape(tensor.shape)


class PlanOnDevice:
    """The driver of a level for a GPU: its plan, its code and its weights on ``info``, or a device that fits.

    Raises ArtifactError for a plan that is damaged or does not fit the manifest, DeviceError where no device
    fits or the one that does refuses the code, and CapacityError where it has no room.
    """

    def __init__(self, artifact: Artifact, entry: Entry, info: DeviceInfo | None = None) -> None:
        if entry.plan is None:
            raise ArtifactError(f"{entry.library} is code for a device without a launch plan.")
        plan = decode_plan(artifact.read(entry.plan))
        target = next(each.target for each in artifact.manifest.levels if entry in each.entries())
        info = info or choose_device(
            target.api or "",
            architecture=None if target.cpu == "any" else target.cpu,
            features=target.features,
        )
        _, files = read_device_code(artifact, entry)
        weights = artifact.weights()
        self._device = device_apis()[info.api].open(info.index)
        self._calls = DeviceCalls(
            plan,
            self._device,
            files,
            [weights[name] for name in entry.weights],
            [output.dtype for output in artifact.manifest.outputs],
        )

    def call(
        self,
        arrays: Sequence[npt.NDArray[Any]],
        threads: int,
        instrument: Callable[..., None] | None = None,
    ) -> list[npt.NDArray[Any]]:
        """Outputs for ``arrays``; ``threads`` means nothing to a device.

        Raises UsageError with an ``instrument``: a device's kernels are not called one by one.
        """
        if instrument is not None:
            raise UsageError("The kernels of a device cannot be observed one by one.")
        return self._calls.call(arrays)

    @property
    def calls(self) -> DeviceCalls:
        """The plan on the device."""
        return self._calls

    def is_weight(self, tensor: Any) -> bool:
        """Never: nothing shows the tensors of a device."""
        return False


def read_device_code(artifact: Artifact, entry: Entry) -> tuple[DeviceCode, dict[str, bytes]]:
    """The description of the code of ``entry``, and the files that it names, by name."""
    code = decode_device_code(artifact.read(entry.library))
    folder = PurePosixPath(entry.library).parent
    return code, {name: artifact.read(str(folder / name)) for name in sorted(set(code.files.values()))}


def numpy_dtype(name: str) -> np.dtype[Any]:
    """NumPy's dtype of a plan's; bfloat16 comes as uint16 with the same bits."""
    assert name in ITEM_BYTES
    return np.dtype("uint16" if name == "bfloat16" else name)


def _narrowed(array: npt.NDArray[Any], dtype: np.dtype[Any], index: int) -> npt.NDArray[Any]:
    """``array`` in the dtype that the device's memory has for it, contiguous, its bytes a multiple of 4.

    Raises InterfaceError for integers that do not fit.
    """
    if array.dtype != dtype:
        converted = array.astype(dtype)
        if array.dtype.kind in "iu" and not np.array_equal(converted, array):
            raise InterfaceError(f"Input number {index} has integers that do not fit the device's {dtype}.")
        array = converted
    array = np.ascontiguousarray(array)
    if array.nbytes % 4 == 0:
        return array
    padded = np.zeros(-(-array.nbytes // 4) * 4, np.uint8)
    padded[: array.nbytes] = array.reshape(-1).view(np.uint8)
    return padded
