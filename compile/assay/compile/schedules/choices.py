"""What measurement may decide about a contraction: the workload that it is, and the choices that it leaves.

A schedule decides by arithmetic unless a ``Choice`` says otherwise, so that a build never depends on search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

__all__ = [
    "ANALYTIC",
    "SCHEDULE_VERSION",
    "Choice",
    "Tuning",
    "Workload",
    "WorkloadKind",
    "batched_matmul_workload",
    "conv2d_workload",
    "packed_matmul_workload",
]

# Raised by a change of the schedules' loops that makes old measurements worthless.
SCHEDULE_VERSION = 1


class WorkloadKind(StrEnum):
    """Contractions by the schedule that they get."""

    PACKED_MATMUL = "packed_matmul"
    BATCHED_MATMUL = "batched_matmul"
    CONV2D = "conv2d"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One contraction at given sizes, whatever its epilogue; ``dims`` in the order of its kind.

    ``packed_matmul``: rows, cols, depth. ``batched_matmul``: groups, rows, cols, depth. ``conv2d``: batch,
    height and width of the output, inputs, outputs, kernel_h, kernel_w, stride_h, stride_w, dilation_h,
    dilation_w, groups.
    """

    kind: WorkloadKind
    dims: tuple[tuple[str, int], ...]
    dtype: str = "float32"

    @property
    def key(self) -> str:
        """One line that names the workload: ``packed_matmul float32 rows=128 cols=384 depth=64``, say."""
        return " ".join([self.kind.value, self.dtype, *(f"{name}={size}" for name, size in self.dims)])

    @property
    def sizes(self) -> dict[str, int]:
        """The dimensions by name."""
        return dict(self.dims)

    @property
    def operations(self) -> int:
        """Multiply-adds of one run."""
        size = self.sizes
        if self.kind is WorkloadKind.CONV2D:
            taps = size["kernel_h"] * size["kernel_w"] * size["inputs"] // size["groups"]
            return size["batch"] * size["height"] * size["width"] * size["outputs"] * taps
        return size.get("groups", 1) * size["rows"] * size["cols"] * size["depth"]

    @classmethod
    def parse(cls, key: str) -> Workload:
        """The workload behind a key. Raises ValueError for what is none."""
        kind, _, rest = key.partition(" ")
        dtype, *dims = rest.split(" ")
        pairs = [part.partition("=") for part in dims]
        if not pairs or not all(name and size.isdecimal() and int(size) > 0 for name, _, size in pairs):
            raise ValueError(f"{key!r} is no workload")
        workload = cls(
            kind=WorkloadKind(kind), dtype=dtype, dims=tuple((name, int(size)) for name, _, size in pairs)
        )
        if tuple(workload.sizes) != _DIMS[workload.kind]:
            raise ValueError(f"{key!r} is no workload: its dimensions are {', '.join(_DIMS[workload.kind])}")
        return workload


_DIMS = {
    WorkloadKind.PACKED_MATMUL: ("rows", "cols", "depth"),
    WorkloadKind.BATCHED_MATMUL: ("groups", "rows", "cols", "depth"),
    WorkloadKind.CONV2D: (
        "batch", "height", "width", "inputs", "outputs", "kernel_h", "kernel_w", "stride_h", "stride_w",
        "dilation_h", "dilation_w", "groups",
    ),
}  # fmt: skip


def _workload(kind: WorkloadKind, *sizes: int) -> Workload:
    return Workload(kind=kind, dims=tuple(zip(_DIMS[kind], sizes, strict=True)))


def packed_matmul_workload(rows: int, cols: int, depth: int) -> Workload:
    """A ``[rows, depth]`` times packed constant B ``[depth, cols]``."""
    return _workload(WorkloadKind.PACKED_MATMUL, rows, cols, depth)


def batched_matmul_workload(groups: int, rows: int, cols: int, depth: int) -> Workload:
    """``groups`` products of A ``[rows, depth]`` and B ``[depth, cols]``, both computed."""
    return _workload(WorkloadKind.BATCHED_MATMUL, groups, rows, cols, depth)


def conv2d_workload(
    output: tuple[int, int, int],
    inputs: int,
    outputs: int,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Workload:
    """A convolution with ``output`` of (batch, height, width), channels ``inputs`` to ``outputs``."""
    return _workload(WorkloadKind.CONV2D, *output, inputs, outputs, *kernel, *strides, *dilation, groups)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is decided about a contraction; None leaves it to arithmetic.

    ``rows``: MR of the register tile. ``panel_width``: NR, a multiple of the lanes. ``unroll``: steps of K in
    one iteration. ``chunk_rows``: rows of A that one task walks for each panel. ``serial``: one thread (True)
    or all (False).
    """

    rows: int | None = None
    panel_width: int | None = None
    unroll: int | None = None
    chunk_rows: int | None = None
    serial: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is decided, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @classmethod
    def from_dict(cls, decided: Mapping[str, Any]) -> Choice:
        """A choice from ``as_dict``. Raises ValueError for unknown names and values that make no sense."""
        types = {"serial": bool}
        for name, value in decided.items():
            if name not in {f.name for f in fields(cls)}:
                raise ValueError(f"a choice has no {name!r}")
            if type(value) is not types.get(name, int) or (type(value) is int and value < 1):
                raise ValueError(f"{name} cannot be {value!r}")
        return cls(**decided)


ANALYTIC = Choice()


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Measured decisions of a build: choices by the key of their workload, and kernels kept to one thread.

    ``forms``: scheduled forms, as TVM's JSON, of kernels that no schedule of ours matches, by ``form_key``.
    """

    choices: Mapping[str, Choice]
    serial_kernels: frozenset[str] = frozenset()
    forms: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> list[Any]:
        """What it decides, in a form that JSON can hold, the same for the same decisions."""
        choices = {key: self.choices[key].as_dict() for key in sorted(self.choices)}
        return [choices, sorted(self.serial_kernels), dict(sorted(self.forms.items()))]

    def choice(self, workload: Workload) -> Choice:
        """The choice for a workload; the analytic one where nothing was measured."""
        return self.choices.get(workload.key, ANALYTIC)
