"""One side of a gate run: its files, its environment, and what it builds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from assay.ci.gate.builds import Build, BuildOptions, build, make_inputs
from assay.ci.gate.environments import Environment, is_assay, make_environment
from assay.ci.gate.judge import SideResult
from assay.ci.gate.report import SideInfo
from assay.ci.gate.repository import Repository, Revision
from assay.ci.gate.signals import read_figures
from assay.progress import Progress

__all__ = ["Side", "open_side"]


@dataclass(frozen=True, kw_only=True)
class Side:
    """``name`` is ``base`` or ``head``. ``tree`` holds its files, ``folder`` what is made of them.

    ``cache``: the build cache; None for a new one in each build, so that both sides compile what they give.
    """

    name: str
    revision: Revision
    tree: Path
    environment: Environment
    folder: Path
    cache: Path | None = None

    def info(self) -> SideInfo:
        """The side as the report has it."""
        return SideInfo(
            ref=self.revision.ref,
            commit=self.revision.commit,
            worktree=self.revision.worktree,
            dirty=self.revision.dirty,
            own_code=is_assay(self.tree),
            notes=self.environment.notes,
            commit_time=self.revision.time,
        )

    def build(self, model: str, place: str, options: BuildOptions, progress: Progress) -> SideResult:
        """Build ``model`` to ``place``, a name in the side's folder. Raises GateInfrastructureError."""
        with progress.step(f"{self.name}: build {model}"):
            artifact = self.folder / "artifacts" / place
            cache = self.cache or self.folder / "caches" / place
            done = build(model, self.tree, self.environment, artifact, cache, options)
        if done.artifact is None:
            return SideResult(build=done)
        figures = read_figures(done.artifact)
        if done.cpu_seconds is not None:
            figures["compile_time"] = done.cpu_seconds
        return SideResult(build=done, figures=figures)

    def make_inputs(
        self, done: Build, place: str, *, sizes: Sequence[str], seed: int, timeout: float
    ) -> Path | str:
        """Inputs for what the side built, an .npz file; or why there are none."""
        assert done.artifact is not None
        return make_inputs(
            done.artifact,
            self.tree,
            self.environment,
            self.folder / "inputs" / place,
            sizes=sizes,
            seed=seed,
            timeout=timeout,
        )


@contextmanager
def open_side(
    name: str,
    repository: Repository,
    revision: Revision,
    folder: Path,
    cache: Path | None,
    progress: Progress,
) -> Iterator[Side]:
    """The side, in ``folder`` and in paths that are as long as those of the other side.

    Raises GateInfrastructureError where its files cannot be written.
    """
    with ExitStack() as stack:
        with progress.step(f"{name}: check out {revision}"):
            tree = stack.enter_context(repository.tree(revision, folder / "tree"))
            environment = make_environment(tree, folder / "python")
        yield Side(
            name=name, revision=revision, tree=tree, environment=environment, folder=folder, cache=cache
        )
