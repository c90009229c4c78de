"""Build a model, and save inputs with ONNX Runtime's outputs for them: ``make_case.py MODEL FOLDER``.

Also a small decoder of random numbers, with the tokens that its definition gives.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

from assay.compile.build import build_artifact
from assay.compile.decoders.interface import DecoderOptions
from assay.models.inputs import make_inputs
from assay.models.registry import find_model


def main(model: str, folder: Path) -> None:
    """Write ``artifact/``, ``packed.assay``, ``inputs.npz``, ``expected.npz`` and ``tolerance.json``."""
    spec = find_model(model)
    result = build_artifact(spec, output=folder / "artifact")
    build_artifact(spec, output=folder / "packed.assay", packed=True)
    inputs = make_inputs(result.canonical.spec)
    session = onnxruntime.InferenceSession(result.canonical.path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    np.savez(folder / "inputs.npz", **inputs)
    np.savez(folder / "expected.npz", **dict(zip(names, session.run(names, inputs), strict=True)))
    tolerance = {"atol": spec.tolerance.absolute, "rtol": spec.tolerance.relative}
    (folder / "tolerance.json").write_text(json.dumps(tolerance))
    make_decoder(folder)


def make_decoder(folder: Path) -> None:
    """Write ``decoder/`` and ``text.json``: a prompt, and the most likely tokens behind it."""
    path = Path(__file__).parents[2] / "compile" / "decoders" / "tiny.py"
    module_spec = importlib.util.spec_from_file_location("tiny_decoders", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    tiny = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = tiny
    module_spec.loader.exec_module(tiny)
    model = tiny.Tiny()
    options = DecoderOptions(cache_dtype="float32", max_tokens=16)
    build_artifact(tiny.model_spec(model, folder, eos_ids=()), output=folder / "decoder", decoder=options)
    prompt, tokens = list(range(3, 40)), list[int]()
    for _ in range(40):
        tokens.append(int(tiny.logits_of(model, np.array([*prompt, *tokens]))[-1].argmax()))
    (folder / "text.json").write_text(json.dumps({"prompt": prompt, "tokens": tokens}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
