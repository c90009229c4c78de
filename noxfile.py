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
TARGETS = (
    "native",
    "wasm32-simd",
    "wasm32-relaxed-simd",
    "x86-64-v2",
    "x86-64-v3",
    "x86-64-v4",
    "x86-64-v4-vnni",
    "x86-64-v4-amx",
    "aarch64-neon",
    "aarch64-neon-dotprod",
    "aarch64-neon-i8mm",
    "riscv64-rvv",
    "cuda-sm_75",
    "cuda-sm_80",
    "cuda-sm_86",
    "cuda-sm_89",
    "cuda-sm_90",
    "cuda-sm_100",
    "cuda-sm_120",
    "rocm-gfx90a",
    "rocm-gfx942",
    "rocm-gfx1030",
    "rocm-gfx1100",
    "rocm-gfx1201",
    "metal",
    "vulkan",
    "opencl",
    "webgpu",
)
# uv reads none of pip's configuration, and so would miss a CPU build of torch that is configured there; some
# models are downloaded with the environment's own pip.
PIP = "virtualenv"
RUNTIME_CASE = Path(".nox", "runtime-case").resolve()
# The model of `runtime_only`: small, with weights, and in the onnx package, so that nothing is downloaded.
RUNTIME_MODEL = "light-squeezenet"


def install_for(session: nox.Session) -> list[str]:
    """Install what the session's arguments need, torch where they name it; gives the models without torch."""
    session.install("-e", ".[compile,cuda]" if session.name.startswith("build-cuda") else ".[compile]")
    listed = session.run("assay", "models", "--json", silent=True)
    if not isinstance(listed, str):  # `nox --install-only` runs nothing
        return []
    models = json.loads(listed)
    # Sets and engines are called `torch` too; the set `all` includes it.
    for_torch = {"torch", "all", *(model["name"] for model in models if model["needs_torch"])}
    if for_torch & set(session.posargs):
        session.install("-e", ".[torch]")
    return [model["name"] for model in models if not model["needs_torch"]]


def define_build(target: str) -> None:
    """Define the session that builds for ``target``."""

    @nox.session(name=f"build-{target}", venv_backend=PIP, reuse_venv=True)
    def session_for_target(session: nox.Session) -> None:
        default = install_for(session)
        session.run("assay", "build", "--target", target, *(session.posargs or default))

    session_for_target.__doc__ = f"Build models for {target}: those named after `--`, else all without torch."


for name in TARGETS:
    define_build(name)


@nox.session(venv_backend=PIP, reuse_venv=True)
def bench(session: nox.Session) -> None:
    """Build, verify and measure the default set beside ONNX Runtime (or `-- MODEL --threads N` ...)."""
    install_for(session)
    session.run("assay", "bench", *(session.posargs or ["--set", "default"]))


@nox.session(venv_backend=PIP, reuse_venv=True)
def asv(session: nox.Session) -> None:
    """Measure this commit with asv's suites (or `-- continuous BASE HEAD`, `-- publish` ...)."""
    session.install("-e", ".[suites]")
    session.run("python", "-m", "assay.ci.asv_run", *session.posargs)


@nox.session(venv_backend=PIP, reuse_venv=True)
def dashboard(session: nox.Session) -> None:
    """Write the site of all figures over commits to results/site (or `-- OPTIONS of assay dashboard`)."""
    session.install("-e", ".[dashboard,suites]")
    # Of asv's results the figures are drawn by asv itself; where there are none, there is nothing to publish.
    if any(Path("results", "asv").glob("*/*.json")):
        session.run("python", "-m", "assay.ci.asv_run", "publish")
    session.run("assay", "dashboard", *session.posargs)


@nox.session(venv_backend=PIP, reuse_venv=True)
def gate(session: nox.Session) -> None:
    """Compare two commits with `assay gate` (`-- --base REF --models MODEL,...`).

    It passes where the answer is not clear, which the gate says: nox has no exit codes to tell that apart.
    """
    session.install("-e", ".[gate]")
    session.run("assay", "gate", *session.posargs, success_codes=[0, 24])


@nox.session(venv_backend=PIP, reuse_venv=True)
def tune(session: nox.Session) -> None:
    """Search on this machine, two minutes a model, and add to Assay's own records (`-- MODEL ...`)."""
    default = install_for(session)
    for model in session.posargs or default:
        session.run("assay", "tune", model, "--budget", "120", "-o", "compile/assay/compile/records")


@nox.session(venv_backend=PIP, reuse_venv=True)
def cuda_suite(session: nox.Session) -> None:
    """Build for every CUDA architecture, run on this machine's GPU, write cuda.json (or `-- MODEL ...`)."""
    session.install("-e", ".[compile,cuda]")
    folder, targets = session.create_tmp(), ",".join(name for name in TARGETS if name.startswith("cuda-"))
    suite = ("python", "-m", "assay.ci.device_suite")
    models = session.posargs or ["light-squeezenet", "silero-vad", "basic-pitch"]
    session.run(*suite, "prepare", folder, *models, "--target", targets)
    session.run(*suite, "run", folder, "--device", "cuda", "-o", "cuda.json")


@nox.session(venv_backend=PIP, reuse_venv=True)
def targets(session: nox.Session) -> None:
    """Build a small model for every target and print what came of each (or `-- MODEL --target T,...`)."""
    session.install("-e", ".[compile,cuda,opencl,webgpu]")
    session.run("python", "-m", "assay.ci.target_table", *session.posargs)


@nox.session(venv_backend=PIP, reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the tests that are fast and need no torch (or `-- PYTEST ARGUMENTS`)."""
    session.install("-e", ".[dev]")
    session.run("pytest", *(session.posargs or ["-m", "not slow and not torch"]))


@nox.session(venv_backend=PIP, reuse_venv=True)
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
