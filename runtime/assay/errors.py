"""Every error that a user can cause, each kind with its own exit code.

::

    AssayError                    1  a bug in Assay, if nothing below fits
    ├── UsageError                2  the command line is wrong
    ├── UnknownNameError          3  no such model, target, scheme or profile
    ├── ModelError                4  not ONNX, truncated, or invalid
    │   ├── ExternalDataError     5  external data missing, or outside the model's folder
    │   └── UnsupportedOperatorError  6  an operator that cannot be compiled
    ├── InterfaceError            7  a shape or dtype that does not fit the interface
    ├── VerificationError         8  the compiled outputs differ from ONNX Runtime's
    ├── ArtifactError             9  an artifact is damaged or incomplete
    │   └── ArtifactVersionError  10 an artifact of a schema newer than this Assay
    ├── CpuFeatureError           11 this CPU lacks instructions that the artifact needs
    ├── StorageError              12 no room, or no permission, on disk
    ├── MissingDependencyError    13 an extra is not installed
    ├── BenchmarkError            14 an engine failed while being measured
    ├── RecordError               15 a results file is damaged or of a newer schema
    ├── WorkloadError             16 a workload folder that does not fit the interface
    ├── ProfileDataError          17 profile data are damaged, of a newer schema, or of another model
    ├── TuningRecordError         18 a tuning record or journal is damaged or of a newer schema
    ├── EmulatorError             19 an emulated machine cannot be started, or did not finish
    ├── CapacityError             20 memory, or the room in a cache, does not suffice
    ├── TokenizerError            21 a tokenizer or chat template is missing, damaged, or does not fit
    ├── DeviceError               22 a device is missing, lacks what the code needs, or was lost
    │   └── RemoteDeviceError     32 a device of another machine cannot be reached, or cannot be trusted
    ├── RegressionError           23 assay gate: something got worse by more than is allowed
    ├── InconclusiveError         24 assay gate: the answer is not clear
    ├── NothingMeasuredError      25 there was nothing to compare
    ├── GateInfrastructureError   26 assay gate: git, the machine or the measuring itself failed
    ├── PastRegressionError      30 assay regressions --fail: there are regressions
    ├── FarmError                 28 a farm has no scheduler or no worker left
    ├── FarmJobError              29 jobs of a farm failed for good
    └── StoreError               31 a database of results cannot be reached or used

Exit code 130 is an interrupt (Ctrl-C), as in every shell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

__all__ = [
    "ArtifactError",
    "ArtifactVersionError",
    "AssayError",
    "BenchmarkError",
    "CapacityError",
    "CpuFeatureError",
    "DeviceError",
    "EmulatorError",
    "ExternalDataError",
    "FarmError",
    "FarmJobError",
    "GateInfrastructureError",
    "InconclusiveError",
    "InterfaceError",
    "MissingDependencyError",
    "ModelError",
    "NothingMeasuredError",
    "PastRegressionError",
    "ProfileDataError",
    "RecordError",
    "RegressionError",
    "RemoteDeviceError",
    "StorageError",
    "StoreError",
    "TokenizerError",
    "TuningRecordError",
    "UnknownNameError",
    "UnsupportedOperatorError",
    "UsageError",
    "VerificationError",
    "WorkloadError",
]


class AssayError(Exception):
    """Base of all errors of Assay: one sentence of what is wrong, and one of what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(AssayError):
    """The command line is wrong."""

    exit_code = 2


class UnknownNameError(AssayError):
    """A name that no registry holds; the hint suggests the nearest ones."""

    exit_code = 3

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        import difflib  # takes milliseconds, and few need it

        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        super().__init__(f"There is no {kind} named {name!r}.", hint=hint)
        self.kind = kind
        self.name = name


class ModelError(AssayError):
    """A model that is not ONNX, is truncated, or does not pass the ONNX checker."""

    exit_code = 4


class ExternalDataError(ModelError):
    """External data that is missing, outside the model's folder, or behind a link."""

    exit_code = 5


class UnsupportedOperatorError(ModelError):
    """An operator that cannot be compiled; the message names the operator and its node."""

    exit_code = 6


class InterfaceError(AssayError):
    """An input whose name, shape or dtype does not fit the model's interface."""

    exit_code = 7


class VerificationError(AssayError):
    """Compiled outputs that differ from ONNX Runtime's by more than the tolerance."""

    exit_code = 8


class ArtifactError(AssayError):
    """An artifact that is damaged, incomplete or not an artifact."""

    exit_code = 9


class ArtifactVersionError(ArtifactError):
    """An artifact whose manifest has a schema that this Assay does not read, a newer or an older one."""

    exit_code = 10


class CpuFeatureError(AssayError):
    """An artifact for instructions that this CPU lacks."""

    exit_code = 11


class StorageError(AssayError):
    """A file that cannot be written: no room, or no permission."""

    exit_code = 12


class MissingDependencyError(AssayError):
    """A package that an extra brings is not installed."""

    exit_code = 13

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed.",
            hint=f"Install the extra that brings it, in a clone of Assay: pip install '.[{extra}]'.",
        )


class BenchmarkError(AssayError):
    """An engine that failed, or gave wrong outputs, while being measured."""

    exit_code = 14


class RecordError(AssayError):
    """A results file that is damaged or of a schema newer than this Assay reads."""

    exit_code = 15


class WorkloadError(AssayError):
    """A workload folder that is empty, cannot be read, or does not fit the model's interface."""

    exit_code = 16


class ProfileDataError(AssayError):
    """Profile data that are damaged, of a newer schema, or of another model."""

    exit_code = 17


class TuningRecordError(AssayError):
    """A tuning record or journal that is damaged or of a schema newer than this Assay reads."""

    exit_code = 18


class EmulatorError(AssayError):
    """An emulated machine that cannot be started, or did not finish in time."""

    exit_code = 19


class CapacityError(AssayError):
    """Memory, or the room in a cache, that does not suffice."""

    exit_code = 20


class TokenizerError(AssayError):
    """A tokenizer or chat template that is missing, damaged, or does not fit the model."""

    exit_code = 21


class DeviceError(AssayError):
    """A GPU or another device that is missing, lacks what the code needs, refuses it, or was lost."""

    exit_code = 22


class RemoteDeviceError(DeviceError):
    """A device of another machine that cannot be reached, is busy, or gives what cannot be right."""

    exit_code = 32


class RegressionError(AssayError):
    """Of `assay gate`: something got worse by more than is allowed, broke or vanished."""

    exit_code = 23


class InconclusiveError(AssayError):
    """Of `assay gate`: nothing got worse for sure, but the answer is not clear for everything."""

    exit_code = 24


class NothingMeasuredError(AssayError):
    """Of `assay gate` and `assay regressions`: there was nothing to compare."""

    exit_code = 25


class GateInfrastructureError(AssayError):
    """Of `assay gate`: git, the machine or the measuring itself failed, and says nothing of the change."""

    exit_code = 26


class PastRegressionError(AssayError):
    """Of `assay regressions --fail`: there are regressions."""

    exit_code = 30


class StoreError(AssayError):
    """A database of results that cannot be reached, or is of another version."""

    exit_code = 31


class FarmError(AssayError):
    """A farm whose scheduler or workers went away; what was done is kept, and the same run goes on."""

    exit_code = 28


class FarmJobError(AssayError):
    """Jobs of a farm that failed for good; the others were done."""

    exit_code = 29
