from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("fake_runtime")

X = np.arange(8, dtype=np.float32).reshape(2, 4)
N = np.array([10, 20], np.int64)
Y = X + N[:, np.newaxis]


def written(folder: Path) -> dict[str, Path]:
    """The inputs in files of every kind."""
    np.savez(folder / "both.npz", x=X, n=N)
    np.save(folder / "x.npy", X)
    (folder / "n.json").write_text(json.dumps(N.tolist()))
    (folder / "both.json").write_text(json.dumps({"x": X.tolist(), "n": N.tolist()}))
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "inputs"
    folder.mkdir()
    return written(folder)


@pytest.mark.parametrize(
    "inputs",
    [["both.npz"], ["both.json"], ["x=x.npy", "n=n.json"], ["x=both.npz", "n=both.json"]],
)
def test_inputs_from_files_of_every_kind(cli, make_artifact, files, tmp_path, monkeypatch, inputs):
    path = make_artifact()
    monkeypatch.chdir(tmp_path / "inputs")
    arguments = [word for value in inputs for word in ("--input", value)]
    found = cli.json("run", path, *arguments, "-o", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as outputs:
        np.testing.assert_array_equal(outputs["y"], Y)
    (summary,) = found["outputs"]
    assert (summary["name"], summary["dtype"], summary["shape"]) == ("y", "float32", [2, 4])
    assert (summary["min"], summary["max"]) == (10.0, 27.0)
    assert summary["mean"] == pytest.approx(Y.mean())


def test_without_inputs_they_are_generated_at_the_sizes_given(cli, make_artifact):
    path = make_artifact()
    assert cli.json("run", path)["outputs"][0]["shape"] == [2, 4]
    assert cli.json("run", path, "--size", "batch=5")["outputs"][0]["shape"] == [5, 4]
    first, second = (cli.json("run", path, "--seed", seed)["outputs"] for seed in (1, 2))
    assert first != second
    assert cli.json("run", path, "--seed", 1)["outputs"] == first


def test_a_summary_for_people_is_on_stdout_and_notes_are_not(cli, make_artifact):
    result = cli("run", make_artifact(), "--threads", 2)
    assert "float32" in result.stdout
    assert "generated random inputs" in result.stderr
    assert "2 threads" in result.stderr
    assert cli("run", make_artifact(), "-q").stderr == ""


def test_a_model_compiled_but_never_executed_is_warned_about(cli, make_artifact, never_executed):
    assert "never executed" in cli("run", make_artifact(levels=(never_executed,)), "-q").stderr


def test_a_level_is_asked_for_and_told(cli, make_artifact, manifest, never_executed):
    high = msgspec.structs.replace(never_executed.target, name="x86-64-v4")
    levels = (manifest.levels[0], msgspec.structs.replace(never_executed, target=high))
    path = make_artifact(levels=levels)
    result = cli("run", path, "--level", "x86-64-v3")
    assert "level x86-64-v3" in result.stderr
    assert "never executed" not in result.stderr
    assert cli.json("run", path, "--level", "x86-64-v3")["level"] == "x86-64-v3"
    assert "its code for x86-64-v4 never executed before" in cli("run", path, "--level", "x86-64-v4").stderr


def bad(folder: Path) -> dict[str, str]:
    """Inputs that do not fit, by what is wrong with them."""
    (folder / "ragged.json").write_text("[[1, 2], [3]]")
    (folder / "text.json").write_text('["a", "b"]')
    (folder / "half.json").write_text("[1.5, 2]")
    (folder / "big.json").write_text("[1e30, 2]")
    (folder / "broken.json").write_text("[1, ")
    (folder / "other.json").write_text('{"z": [1]}')
    (folder / "broken.npy").write_bytes(b"\x93NUMPY broken")
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    np.save(folder / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez(folder / "two.npz", a=X, b=X)
    np.save(folder / "double.npy", X.astype(np.float64))
    np.save(folder / "flat.npy", X.ravel())
    (folder / "photo.png").write_bytes(b"\x89PNG")
    return {
        "n=ragged.json": "InterfaceError: ragged",
        "n=text.json": "InterfaceError: other than numbers",
        "n=half.json": "InterfaceError: no int64",
        "n=big.json": "InterfaceError: no int64",
        "n=broken.json": "UsageError: not JSON",
        "other.json": "InterfaceError: no input 'z'",
        "x=broken.npy": "UsageError: cannot be read",
        "x=broken.npz": "UsageError: cannot be read",
        "x=objects.npy": "UsageError: cannot be read",
        "x=two.npz": "InterfaceError: 2 arrays",
        "x=double.npy": "InterfaceError: dtype float64",
        "x=flat.npy": "InterfaceError: 1 dimensions",
        "x.npy": "InterfaceError: 2 inputs",
        "z=x.npy": "InterfaceError: no input 'z'",
        "x=x.npy": "InterfaceError: 'n' is missing",
        "x=none.npy": "UsageError: no file",
        "photo.png": "UsageError: of no kind",
    }


def test_inputs_that_do_not_fit_are_one_clear_error(cli, make_artifact, files, tmp_path, monkeypatch):
    path = make_artifact()
    monkeypatch.chdir(tmp_path / "inputs")
    codes = {"UsageError": 2, "InterfaceError": 7}
    for argument, expected in bad(tmp_path / "inputs").items():
        kind, _, message = expected.partition(": ")
        found = cli.error("run", path, "--input", argument, "-o", "out.npz", code=codes[kind])
        assert message in found["message"], argument
        assert not Path("out.npz").exists()


def test_an_input_given_twice(cli, make_artifact, files):
    both = files["both.npz"]
    found = cli.error("run", make_artifact(), "--input", both, "--input", both, code=2)
    assert "given twice" in found["message"]


@pytest.mark.parametrize("size", ["batch", "batch=", "=3", "batch=-1", "batch=two"])
def test_a_size_that_is_none(cli, make_artifact, size):
    assert "DIM=N" in cli.error("run", make_artifact(), "--size", size, code=2)["message"]


def test_sizes_that_do_not_fit(cli, make_artifact, files):
    cli.error("run", make_artifact(), "--size", "batch=9", code=7)
    cli.error("run", make_artifact(), "--size", "rows=2", code=7)
    cli.error("run", make_artifact(), "--size", "batch=2", "--input", files["both.npz"], code=2)


def test_outputs_that_cannot_be_written(cli, make_artifact, tmp_path):
    (tmp_path / "file").write_text("")
    cli.error("run", make_artifact(), "-o", tmp_path / "file" / "out.npz", code=12)


def test_a_registered_model_decodes_its_files(cli, make_artifact, manifest, tmp_path, monkeypatch):
    from assay.models.registry import models
    from assay.models.spec import DType, InputSpec, ModelSpec, Weights
    from assay.registry import Registry

    seen = []

    def decode(path: Path) -> dict[str, np.ndarray]:
        seen.append(path.name)
        return {"x": X, "n": N}

    spec = ModelSpec(
        name="pair",
        description="A test.",
        provider=models()["silero-vad"].provider,
        inputs=(
            InputSpec(name="x", dtype=DType.FLOAT32, shape=(1, 4)),
            InputSpec(name="n", dtype=DType.INT64, shape=(1,)),
        ),
        weights=Weights.TRAINED,
        licence="MIT",
        decode_file=decode,
    )
    registry: Registry[ModelSpec] = Registry("model")
    registry.add("pair", spec)
    monkeypatch.setattr("assay.models.registry.models", lambda: registry)
    (tmp_path / "sound.wav").write_bytes(b"RIFF")
    found = cli.json("run", make_artifact(), "--input", tmp_path / "sound.wav")
    assert found["outputs"][0]["max"] == 27.0
    assert seen == ["sound.wav"]
