"""Jobs: what each is, the key of everything that it depends on, and the jobs of a matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec

from assay.ci.farm.spec import FarmSpec
from assay.errors import UsageError

__all__ = ["Job", "jobs_of", "toolchain"]

_TOOLS = ("assay", "apache-tvm", "apache-tvm-ffi", "numpy", "onnx", "onnxruntime", "torch")
_PACKAGES = ("benchmarks", "compile", "models", "runtime")


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One job: ``kind`` on a model, with ``options`` of that kind.

    ``content``: digest of what the model is made from, where it is a file. ``tools``: digest of code and
    versions. ``threads`` is 1 for a build. ``device``: the one of another machine on which it measures.
    """

    kind: str
    model: str
    target: str
    scheme: str
    profile: str
    threads: int = 1
    device: str | None = None
    options: dict[str, Any] = {}
    content: str | None = None
    tools: str = ""

    @property
    def key(self) -> str:
        """32 hexadecimal digits of everything that the result depends on, but for the machine."""
        content = msgspec.json.encode(self, order="deterministic")
        return hashlib.sha256(content).hexdigest()[:32]

    @property
    def label(self) -> str:
        """The job in words."""
        parts = [self.kind, self.model, self.target, self.scheme, self.profile]
        if self.kind != "build":
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        return " ".join([*parts, f"on {self.device}"] if self.device else parts)


def toolchain() -> str:
    """Digest of Assay's code and of the versions that results depend on."""
    from assay.compile.cache import installed_versions, key_of, source_digest

    return key_of([installed_versions(_TOOLS), [source_digest(f"assay.{name}") for name in _PACKAGES]])


def jobs_of(spec: FarmSpec) -> list[Job]:
    """All jobs of ``spec``, builds first; ``native`` is this machine's target.

    Raises UnknownNameError and UsageError for what no job could be.
    """
    from assay.benchmarks.peers import engines
    from assay.ci.farm.kinds import kinds
    from assay.compile.profiles import profiles
    from assay.compile.quantize.prepare import find_plan
    from assay.compile.targets import find_target
    from assay.compile.tune.strategies import strategies

    wanted = spec.matrix
    for kind in wanted.jobs:
        kinds()[kind]
    for profile in wanted.profiles:
        profiles()[profile]
    for scheme in wanted.schemes:
        find_plan(scheme)
    for engine in spec.bench.engines:
        engines()[engine]
    strategies()[spec.tune.strategy]
    targets = list(dict.fromkeys(find_target(name).name for name in wanted.targets))
    tools = toolchain()
    found: dict[str, Job] = {}
    for model, target, scheme, profile in product(
        dict.fromkeys(wanted.models), targets, wanted.schemes, wanted.profiles
    ):
        base = Job(
            kind="build", model=model, target=target, scheme=scheme, profile=profile,
            content=_content_of(model), tools=tools,
        )  # fmt: skip
        for job in _variants(spec, base):
            found[job.key] = job
    order = list(kinds())
    return sorted(found.values(), key=lambda job: order.index(job.kind))


def _variants(spec: FarmSpec, base: Job) -> Sequence[Job]:
    """The jobs of one model, target, scheme and profile; measuring needs the build, asked for or not."""
    jobs = []
    if {"build", "bench"} & set(spec.matrix.jobs):
        jobs.append(base)
    bench, tune = spec.bench, spec.tune
    for threads in dict.fromkeys(spec.matrix.threads):
        if "bench" in spec.matrix.jobs:
            options = {
                "engines": list(bench.engines),
                "rounds": bench.rounds,
                "seconds": bench.seconds,
                "seed": bench.seed,
            }
            jobs += [
                msgspec.structs.replace(base, kind="bench", threads=threads, device=device, options=options)
                for device in bench.devices or (None,)
            ]
        if "tune" in spec.matrix.jobs:
            options = {"budget": tune.budget, "strategy": tune.strategy}
            # What is searched does not depend on scheme and profile: the first of each stands for all.
            if (base.scheme, base.profile) == (spec.matrix.schemes[0], spec.matrix.profiles[0]):
                jobs.append(msgspec.structs.replace(base, kind="tune", threads=threads, options=options))
    return jobs


def _content_of(model: str) -> str | None:
    """Digest of the file that ``model`` names, None where it is a name. Raises what ``find_model`` does."""
    from assay.models.registry import find_model

    spec = find_model(model)
    if spec.decoder is not None:
        raise UsageError(
            f"{model} is a language model, which a farm does not take yet.", hint=f"assay bench llm {model}"
        )
    path = Path(model)
    if not path.is_file():
        return None
    data = path.with_name(path.name + ".data")
    digest = hashlib.sha256(path.read_bytes())
    if data.is_file():
        digest.update(data.read_bytes())
    return f"sha256:{digest.hexdigest()}"
