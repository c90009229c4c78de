"""Run what ``make_case.py`` built, where only the base is installed: ``check_case.py FOLDER``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

ABSENT = ("tvm", "torch", "onnx", "onnxruntime", "tokenizers", "jinja2")


def check_absence() -> None:
    """Exit when a package that must be absent is installed."""
    present = [name for name in ABSENT if importlib.util.find_spec(name) is not None]
    if present:
        sys.exit(f"not a base install: {', '.join(present)} can be imported")


def check_outputs(artifact: Path, folder: Path) -> None:
    """Run ``artifact`` through the Python interface and compare; raises AssertionError on a difference."""
    import numpy as np

    import assay.runtime

    start = time.perf_counter()
    model = assay.runtime.load(artifact)
    loaded = time.perf_counter() - start
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "expected.npz") as expected:
        outputs = model.run(dict(inputs))
        assert list(outputs) == list(expected), f"outputs {list(outputs)}, expected {list(expected)}"
        tolerance = json.loads((folder / "tolerance.json").read_text())
        for name in expected:
            np.testing.assert_allclose(outputs[name], expected[name], **tolerance, err_msg=name)
            print(f"{artifact.name}: {name} agrees with ONNX Runtime's; loaded in {loaded:.3f} s", flush=True)


def check_command(artifact: Path, folder: Path) -> None:
    """Run ``artifact`` through the ``assay`` command; raises CalledProcessError when it fails."""
    assay = Path(sys.executable).with_name("assay")
    subprocess.run([str(assay), "run", str(artifact), "--input", str(folder / "inputs.npz")], check=True)


def check_decoder(artifact: Path, folder: Path) -> None:
    """Generate tokens through both interfaces; raises AssertionError where they are others."""
    import assay.runtime

    case = json.loads((folder / "text.json").read_text())
    model = assay.runtime.load_decoder(artifact, threads=1)
    found = model.generate(case["prompt"], max_new_tokens=len(case["tokens"])).result()
    assert list(found.tokens) == case["tokens"], found.tokens
    assay = Path(sys.executable).with_name("assay")
    prompt = ",".join(map(str, case["prompt"]))
    command = [str(assay), "generate", str(artifact), "--prompt-ids", prompt, "-n", str(len(case["tokens"]))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert list(map(int, done.stdout.split())) == case["tokens"], done.stdout
    text = subprocess.run(
        [str(assay), "generate", str(artifact), "--prompt", "a"], check=False, capture_output=True, text=True
    )
    assert text.returncode == 21, text.stderr
    print(f"{artifact.name}: generates the expected tokens", flush=True)


def main(folder: Path) -> None:
    """Check both forms of the artifact, and a decoder."""
    check_absence()
    for form in ("artifact", "packed.assay"):
        check_outputs(folder / form, folder)
    check_command(folder / "artifact", folder)
    check_decoder(folder / "decoder", folder)
    loaded = [name for name in ABSENT if name in sys.modules]
    assert not loaded, f"loaded: {loaded}"
    print(f"{', '.join(ABSENT)} are absent, and the artifact runs.")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
