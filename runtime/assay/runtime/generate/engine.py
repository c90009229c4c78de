"""One call of a compiled decoder: its arguments in memory that stays, and what executes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from assay.errors import CapacityError
from assay.runtime.memory import empty_aligned

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.drivers.opening import Driver
    from assay.runtime.drivers.plan_device import DeviceCalls
    from assay.runtime.drivers.tvm_vm import TvmVm
    from assay.runtime.generate.cache import KvCache
    from assay.runtime.generate.pages import PageCopy
    from assay.runtime.manifest import DecoderInfo

__all__ = ["DeviceEngine", "DriverEngine", "Engine", "StepArguments", "StepMemory", "VmEngine"]

_KEPT_SHAPES = 256
_ARGUMENTS = 6  # of a step, beside the cache


class StepArguments:
    """The arguments of one call, views of memory that stays: fill them, then call.

    ``input_ids`` and ``position_ids`` are int64 ``[1, tokens]``; ``sequence_offsets`` int32 ``[sequences +
    1]`` (rows of sequence s are ``[offsets[s], offsets[s + 1])``), ``past_lengths`` int32 ``[sequences]``
    (tokens in the cache), ``page_table`` int32 ``[sequences, table_width]``, ``logits_rows`` int64 ``[rows]``
    (rows that get logits). ``bound`` is for the engine to keep its own form of them.
    """

    __slots__ = (
        "bound",
        "input_ids",
        "logits_rows",
        "page_table",
        "past_lengths",
        "position_ids",
        "sequence_offsets",
    )

    def __init__(self, memory: StepMemory, tokens: int, sequences: int, rows: int) -> None:
        self.input_ids = memory.input_ids[:tokens].reshape(1, tokens)
        self.position_ids = memory.position_ids[:tokens].reshape(1, tokens)
        self.sequence_offsets = memory.sequence_offsets[: sequences + 1]
        self.past_lengths = memory.past_lengths[:sequences]
        self.page_table = memory.page_table[:sequences]
        self.logits_rows = memory.logits_rows[:rows]
        self.bound: Any = None

    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """All arguments in the order in which a decoder takes them."""
        return (
            self.input_ids,
            self.position_ids,
            self.sequence_offsets,
            self.past_lengths,
            self.page_table,
            self.logits_rows,
        )


class StepMemory:
    """Aligned memory for the arguments of calls of up to the sizes that ``info`` allows."""

    def __init__(self, info: DecoderInfo, context: int) -> None:
        width = -(-context // info.page_tokens)
        self.input_ids = empty_aligned((info.max_tokens,), np.dtype(np.int64))
        self.position_ids = empty_aligned((info.max_tokens,), np.dtype(np.int64))
        self.sequence_offsets = empty_aligned((info.max_sequences + 1,), np.dtype(np.int32))
        self.past_lengths = empty_aligned((info.max_sequences,), np.dtype(np.int32))
        self.page_table = empty_aligned((info.max_sequences, width), np.dtype(np.int32))
        self.logits_rows = empty_aligned((info.max_rows,), np.dtype(np.int64))
        self._kept: dict[tuple[int, int, int], StepArguments] = {}

    def arguments(self, tokens: int, sequences: int, rows: int) -> StepArguments:
        """Arguments of these sizes, in the same memory as all others; the same object for the same sizes."""
        sizes = (tokens, sequences, rows)
        kept = self._kept.get(sizes)
        if kept is None:
            if len(self._kept) >= _KEPT_SHAPES:
                self._kept.clear()
            kept = self._kept[sizes] = StepArguments(self, tokens, sequences, rows)
        return kept


class Engine(Protocol):
    """Computes one call; it was made for one cache, which it writes in place."""

    def run(self, arguments: StepArguments, threads: int) -> npt.NDArray[np.float32]:
        """Logits, float32 ``[rows, vocabulary]``, of the rows that are asked for; they stay the caller's."""
        ...

    def copy_page(self, copy: PageCopy) -> None:
        """Copy a page of the cache to another."""


class VmEngine:
    """Runs the compiled library of an artifact."""

    def __init__(self, driver: TvmVm, cache: KvCache) -> None:
        self._driver = driver
        self._cache = driver.tensors(cache.arrays)
        self.copy_page = cache.copy_page

    def run(self, arguments: StepArguments, threads: int) -> npt.NDArray[np.float32]:
        """As ``Engine`` says. Tensors over the arguments are made once for each combination of sizes."""
        tensors = arguments.bound
        if tensors is None:
            tensors = arguments.bound = self._driver.tensors(arguments.arrays()) + self._cache
        (logits,) = self._driver.call_tensors(tensors, threads)
        return logits


class DriverEngine:
    """Runs the code of an artifact by any driver, which writes the cache where it is."""

    def __init__(self, driver: Driver, cache: KvCache) -> None:
        self._driver = driver
        self._cache = cache.arrays
        self.copy_page = cache.copy_page

    def run(self, arguments: StepArguments, threads: int) -> npt.NDArray[np.float32]:
        """As ``Engine`` says."""
        (logits,) = self._driver.call([*arguments.arrays(), *self._cache], threads)
        return logits


class DeviceEngine:
    """Runs a plan on a device, where the cache lies: its memory on the host is never touched.

    Raises CapacityError where the device has no room for the cache.
    """

    def __init__(self, calls: DeviceCalls, cache: KvCache) -> None:
        self._calls = calls
        self._cache = cache
        # The arguments of a step come first.
        self._kept = dict(enumerate(cache.arrays, _ARGUMENTS))
        try:
            calls.keep(self._kept)
        except CapacityError as error:
            raise CapacityError(
                f"The cache does not fit on the device: {error.message}",
                hint="Load the model with a smaller context or for fewer sequences.",
            ) from error

    def run(self, arguments: StepArguments, threads: int) -> npt.NDArray[np.float32]:
        """As ``Engine`` says."""
        (logits,) = self._calls.call([*arguments.arrays(), *self._cache.arrays])
        return logits

    def copy_page(self, copy: PageCopy) -> None:
        """By way of the host: it is rare, and devices need no copies of their own for it."""
        for index, array in self._kept.items():
            whole = np.empty_like(array)
            self._calls.fetch(index, whole)
            whole[copy.destination] = whole[copy.source]
            self._calls.store(index, whole)
