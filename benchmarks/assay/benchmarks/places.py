"""Where rounds run: this machine, or a device of another one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from assay.benchmarks.machine import choose_cpus, fingerprint
from assay.benchmarks.peers import Engine, ModelFiles, engines
from assay.benchmarks.provenance import versions

if TYPE_CHECKING:
    from assay.benchmarks.job import Job, Report
    from assay.results.record import Machine
    from assay.runtime.cpu import Cpu

__all__ = ["Place", "ThisMachine"]


class Place(Protocol):
    """A machine on which engines are measured."""

    @property
    def note(self) -> str | None:
        """What readers of its figures must know of it; None of this machine."""
        ...

    @property
    def cpu(self) -> Cpu | None:
        """Its CPU; None for this machine's."""
        ...

    def fingerprint(self) -> Machine:
        """What the machine is."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the packages there that matter to figures."""
        ...

    def engine_version(self, engine: Engine) -> str:
        """The version of ``engine`` there."""
        ...

    def unavailable(self, names: Iterable[str], files: ModelFiles) -> dict[str, str]:
        """Those of the engines called ``names`` that cannot run the model there, with the reason."""
        ...

    def choose_cpus(self, threads: int) -> tuple[int, ...]:
        """The CPUs for a job of so many threads; none where they are chosen there."""
        ...

    def run(self, job: Job, timeout: float) -> Report:
        """Do ``job`` in a fresh process there; its outputs and its report end up at the paths that it names.

        Raises BenchmarkError where the engine fails, or does not end within ``timeout`` seconds.
        """
        ...


class ThisMachine:
    """The machine that this process runs on."""

    note: str | None = None
    cpu: Cpu | None = None

    def fingerprint(self) -> Machine:
        """What the system tells."""
        return fingerprint()

    def versions(self) -> dict[str, str]:
        """Of what is installed."""
        return versions()

    def engine_version(self, engine: Engine) -> str:
        """Of what is installed."""
        return engine.version()

    def unavailable(self, names: Iterable[str], files: ModelFiles) -> dict[str, str]:
        """What the engines themselves say. Raises UnknownNameError."""
        reasons = {name: engines()[name].unavailable(files) for name in names}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def choose_cpus(self, threads: int) -> tuple[int, ...]:
        """Of different physical cores as far as there are enough."""
        return choose_cpus(threads)

    def run(self, job: Job, timeout: float) -> Report:
        """A process of this machine."""
        from assay.benchmarks.harness import run_worker

        return run_worker(job, timeout)
