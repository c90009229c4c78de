"""Every check and every build of Assay, each in an environment of its own: ``nox -l`` lists them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "types", "tests", "docs"]

# `native` and every registered target; a test compares them with the registry of assay.compile.targets.
TARGETS = ("native", "x86-64-v3", "x86-64-v4")
RUNTIME_CASE = Path(".nox", "runtime-case").resolve()
# The model of `runtime_only`: small, with weights, and in the onnx package, so that nothing is downloaded.
RUNTIME_MODEL = "light_squeezenet"


def torch_free_models(session: nox.Session) -> list[str]:
    """Names of the models that need no torch: the default set."""
    listed = session.run("assay", "models", "--json", silent=True)
    if not isinstance(listed, str):  # `nox --install-only` runs nothing
        return []
    return [model["name"] for model in json.loads(listed) if not model["needs_torch"]]


def build(session: nox.Session, target: str) -> None:
    session.install("-e", ".[compile]")
    for model in session.posargs or torch_free_models(session):
        session.run("assay", "build", model, "--target", target, "-o", f"artifacts/{target}/{model}")


def define_build(target: str) -> None:
    @nox.session(name=f"build-{target}", reuse_venv=True)
    def session_for_target(session: nox.Session) -> None:
        build(session, target)

    session_for_target.__doc__ = f"Build the models named after `--` (else all that need no torch) for {target}."


for name in TARGETS:
    define_build(name)


@nox.session(reuse_venv=True)
def bench(session: nox.Session) -> None:
    """Build, verify and measure the default set against ONNX Runtime (or `-- MODEL --threads N` ...)."""
    session.install("-e", ".[compile]")
    session.run("assay", "bench", *(session.posargs or ["--set", "default"]))


@nox.session(reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the tests that are fast and need no torch (or `-- PYTEST ARGUMENTS`)."""
    session.install("-e", ".[dev]")
    session.run("pytest", *(session.posargs or ["-m", "not slow and not torch"]))


# uv does not read pip's configuration, and so would miss a CPU build of torch that is configured there.
@nox.session(venv_backend="virtualenv", reuse_venv=True)
def tests_torch(session: nox.Session) -> None:
    """Run all tests, slow ones and those that need torch too (or `-- PYTEST ARGUMENTS`)."""
    session.install("-e", ".[dev,torch]")
    session.run("pytest", *(session.posargs or ["-m", ""]))


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style and formatting with ruff (`-- --fix` mends what it can)."""
    session.install("ruff>=0.9")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", *([] if session.posargs else ["--check"]))


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Check types with mypy, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy", *session.posargs)


@nox.session(reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Check that links resolve and that commands named in the documentation exist."""
    session.install("-e", ".", "nox>=2025.2.9", "pytest>=8.3")
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(default=False)
def runtime_case(session: nox.Session) -> None:
    """Build the wheel, one artifact and its expected outputs, which `runtime_only` takes."""
    session.install("-e", ".[compile]", "hatchling>=1.27")
    shutil.rmtree(RUNTIME_CASE, ignore_errors=True)
    session.run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", str(RUNTIME_CASE))
    session.run("python", "tests/packaging/runtime_only/make_case.py", RUNTIME_MODEL, str(RUNTIME_CASE))


@nox.session(requires=["runtime_case"])
def runtime_only(session: nox.Session) -> None:
    """Install the base alone and run an artifact where tvm, torch, onnx and onnxruntime are absent."""
    session.install(*map(str, RUNTIME_CASE.glob("*.whl")))
    session.chdir(session.create_tmp())  # away from the sources, so that only what is installed is found
    script = Path(__file__).parent / "tests" / "packaging" / "runtime_only" / "check_case.py"
    session.run("python", "-I", str(script), str(RUNTIME_CASE))
