from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import msgspec
import numpy as np
import pytest

import assay.runtime
from assay.errors import ArtifactError, CpuFeatureError, InterfaceError
from assay.runtime import cpu, session
from assay.runtime.artifact import open_artifact
from assay.runtime.cpu import Cpu, available_cores, detect_cpu
from assay.runtime.manifest import Input, SymbolicSize
from assay.runtime.session import check_inputs

ROWS = 96


def make_input(batch: int = 5) -> np.ndarray:
    return np.random.default_rng(batch).standard_normal((batch, ROWS), dtype=np.float32)


def aligned(array: np.ndarray, offset: int = 0) -> np.ndarray:
    """A copy that starts ``offset`` bytes behind a 64-byte boundary."""
    buffer = np.empty(array.nbytes + 128, np.uint8)
    start = -buffer.ctypes.data % 64 + offset
    copy = buffer[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@pytest.fixture(scope="module")
def model(tiny_artifact):
    return assay.runtime.load(tiny_artifact)


def assert_right(tiny, outputs, x):
    reference = tiny.reference(x)
    assert list(outputs) == list(reference)
    for name, expected in reference.items():
        np.testing.assert_allclose(outputs[name], expected, atol=1e-4, rtol=1e-4)


def test_interface(model):
    assert [spec.name for spec in model.inputs] == ["x"]
    assert [spec.name for spec in model.outputs] == ["y", "z"]
    assert model.executed
    assert model.threads == available_cores()
    assert repr(model) == f"<Model tiny for native, {model.threads} threads>"


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_every_size_of_a_symbolic_dimension(model, tiny, batch):
    x = make_input(batch)
    assert_right(tiny, model.run({"x": x}), x)


def test_one_file_form(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tiny.write(tmp_path / "tiny.assay", packed=True)
    x = make_input()
    assert_right(tiny, assay.runtime.load(path).run({"x": x}), x)


@pytest.mark.parametrize("offset", [0, 4, 16, 60])
def test_any_alignment(model, tiny, offset):
    x = aligned(make_input(), offset)
    assert_right(tiny, model.run({"x": x}), x)


def test_strides(model, tiny):
    x = make_input(10)
    for view in (x[::2], x[::-1], np.asfortranarray(x)):
        assert_right(tiny, model.run({"x": view}), view)


def test_read_only_input(model, tiny):
    x = aligned(make_input())
    x.flags.writeable = False
    assert_right(tiny, model.run({"x": x}), x)


def test_outputs_live_longer_than_the_model(tiny, tmp_path):
    x = make_input()
    outputs = assay.runtime.load(tiny.write(tmp_path / "a")).run({"x": x})
    for _ in range(20):
        np.full((1000, 1000), np.nan)
    assert_right(tiny, outputs, x)


def test_outputs_of_two_runs_are_apart(model, tiny):
    one, other = make_input(3), make_input(4)
    first = model.run({"x": one})
    first["y"] += 0
    model.run({"x": other})
    assert_right(tiny, first, one)


@pytest.mark.torch
def test_torch_tensors(model, tiny):
    torch = pytest.importorskip("torch")
    x = make_input()
    assert_right(tiny, model.run({"x": torch.from_numpy(x)}), x)
    with pytest.raises(InterfaceError, match="cannot be exchanged"):
        model.run({"x": torch.from_numpy(x).requires_grad_()})


def test_several_threads(model, tiny):
    failures = []

    def work(batch):
        try:
            for _ in range(10):
                x = make_input(batch)
                assert_right(tiny, model.run({"x": x}), x)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=work, args=(batch,)) for batch in range(1, 6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_two_models_at_once(tiny, tmp_path):
    models = [assay.runtime.load(tiny.write(tmp_path / str(i)), threads=i) for i in (1, 2)]
    x = make_input()
    for each in models * 2:
        assert_right(tiny, each.run({"x": x}), x)


def test_threads_must_be_positive(tiny_artifact):
    with pytest.raises(ValueError, match="at least 1"):
        assay.runtime.load(tiny_artifact, threads=0)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "'x' is missing"),
        ({"X": make_input()}, "no input 'X'"),
        ({"x": make_input(), "y": make_input()}, "no input 'y'"),
        ({"x": make_input().astype(np.float64)}, r"'x' has dtype float64, expected float32"),
        ({"x": make_input().astype(">f4")}, r"'x' has dtype >f4, expected float32"),
        ({"x": make_input()[0]}, "'x' has 1 dimensions, expected 2"),
        ({"x": make_input()[:, :95]}, "'x', dimension 1: size 95, expected 96"),
        ({"x": make_input()[:0]}, "'x', dimension 0: batch is 0, expected 1 to 4096"),
        ({"x": make_input().tolist()}, "'x' is a list, not an array"),
        ({"x": None}, "'x' is a NoneType"),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, words):
    with pytest.raises(InterfaceError, match=words) as caught:
        model.run(inputs)
    assert caught.value.hint


def test_hint_shows_the_interface(model):
    with pytest.raises(InterfaceError) as caught:
        model.run({"x": np.zeros((2, 3), np.float32)})
    assert caught.value.hint == "Expected float32[batch, 96] with batch from 1 to 4096, got float32[2, 3]."


def test_symbolic_dimensions_must_agree():
    batch = SymbolicSize(name="batch", default=1, minimum=1, maximum=8)
    interface = (
        Input(name="a", dtype="int64", shape=(batch, 2)),
        Input(name="b", dtype="bool", shape=(3, batch)),
    )
    arrays = check_inputs(interface, {"b": np.zeros((3, 4), bool), "a": np.zeros((4, 2), np.int64)})
    assert [array.shape for array in arrays] == [(4, 2), (3, 4)]
    with pytest.raises(InterfaceError, match="'b', dimension 1: batch is 5, but 4 in input 'a'"):
        check_inputs(interface, {"a": np.zeros((4, 2), np.int64), "b": np.zeros((3, 5), bool)})


def test_scalars():
    interface = (Input(name="rate", dtype="int64", shape=()),)
    assert check_inputs(interface, {"rate": np.int64(16000)})[0].shape == ()
    with pytest.raises(InterfaceError, match="'rate' is a int"):
        check_inputs(interface, {"rate": 16000})


def test_artifact_that_is_replaced_while_loading(tiny, tmp_path, monkeypatch):
    path = tiny.write(tmp_path / "a")
    opened = []

    def open_and_replace(*arguments, **options):
        result = open_artifact(*arguments, **options)
        opened.append(result.manifest.scheme)
        if len(opened) == 1:
            tiny.write(path, scheme="int8")
        return result

    monkeypatch.setattr(session, "open_artifact", open_and_replace)
    assert assay.runtime.load(path).manifest.scheme == "int8"
    assert opened == ["f32", "int8"]


def test_cpu_that_lacks_instructions(tiny, tmp_path, make_level, monkeypatch):
    path = tiny.write(tmp_path / "a", levels=(make_level("high", "avx512f", "avx512_vnni"),))
    fake = Cpu(machine=detect_cpu().machine, system=detect_cpu().system, name="Old", features=frozenset())
    monkeypatch.setattr(cpu, "detect_cpu", lambda: fake)
    with pytest.raises(CpuFeatureError, match=r"Old.*avx512_vnni, avx512f"):
        assay.runtime.load(path)


def test_code_of_another_machine(tiny, tmp_path, make_level):
    level = make_level("other")
    target = msgspec.structs.replace(level.target, triple="s390x-linux-gnu")
    level = msgspec.structs.replace(level, target=target)
    with pytest.raises(CpuFeatureError, match="s390x"):
        assay.runtime.load(tiny.write(tmp_path / "a", levels=(level,)))


def test_damaged_library_is_never_loaded(tiny, tmp_path, monkeypatch):
    path = tiny.write(tmp_path / "a")
    library = path / "lib" / "model.so"
    data = bytearray(library.read_bytes())
    data[len(data) // 2] ^= 1
    library.write_bytes(data)
    monkeypatch.setattr(session, "choose", pytest.fail)
    with pytest.raises(ArtifactError, match=r"lib/model\.so.*damaged"):
        assay.runtime.load(path)


def test_number_of_outputs_must_fit(tiny, tmp_path, make_manifest):
    path = tiny.write(tmp_path / "a", outputs=make_manifest().outputs[:1])
    with pytest.raises(ArtifactError, match="returned 2 outputs; the manifest names 1"):
        assay.runtime.load(path).run({"x": make_input()})


def _in_a_fresh_process(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = '{"tvm", "torch", "onnx", "onnxruntime"}'


def test_import_is_light():
    code = f"""
        import sys, assay.runtime
        assert not {HEAVY[:-1]}, "tvm_ffi", "numpy", "msgspec"}} & sys.modules.keys()
        assay.runtime.load, assay.runtime.Model, assay.runtime.open_artifact
        assert not {HEAVY} & sys.modules.keys()
    """
    _in_a_fresh_process(code)


def test_import_leaves_out_what_few_processes_need():
    """Most of it takes longer to import than all of ``assay.runtime``."""
    _in_a_fresh_process("""
        import sys, numpy
        before = set(sys.modules)
        from assay.runtime import load
        unwanted = {"importlib.metadata", "email", "difflib", "json", "subprocess", "concurrent.futures"}
        assert not unwanted & (sys.modules.keys() - before)
        assert not [name for name in sys.modules if name.startswith("assay.runtime.devices")]
    """)


def test_running_on_the_cpu_looks_for_no_device(tiny_artifact):
    code = """
        import sys, numpy, assay.runtime
        model = assay.runtime.load(sys.argv[1])
        model.run({"x": numpy.zeros((2, 96), numpy.float32)})
        assert not [name for name in sys.modules if name.startswith("assay.runtime.devices")]
    """
    _in_a_fresh_process(code, tiny_artifact)


def test_loading_starts_no_program(tiny_artifact):
    code = """
        import sys, numpy, assay.runtime
        started = []
        sys.addaudithook(lambda event, _: started.append(event))
        assay.runtime.load(sys.argv[1]).run({"x": numpy.zeros((2, 96), numpy.float32)})
        assert "open" in started
        assert not {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"} & set(started)
    """
    _in_a_fresh_process(code, tiny_artifact)


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = assay.runtime.lode


def test_running_imports_nothing_heavy(tiny_artifact):
    code = f"""
        import sys, numpy, assay.runtime
        model = assay.runtime.load(sys.argv[1])
        model.run({{"x": numpy.zeros((2, 96), numpy.float32)}})
        assert not {HEAVY} & sys.modules.keys()
    """
    _in_a_fresh_process(code, tiny_artifact)


def test_runs_without_the_compiler(tiny_artifact):
    """With every heavy package hidden, as where only the base is installed."""
    code = f"""
        import sys
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {HEAVY}:
                    raise ModuleNotFoundError(name=name)
        sys.meta_path.insert(0, Hide())
        import numpy, assay.runtime
        model = assay.runtime.load(sys.argv[1])
        outputs = model.run({{"x": numpy.zeros((2, 96), numpy.float32)}})
        assert outputs["y"].shape == (2, 33)
    """
    _in_a_fresh_process(code, tiny_artifact)


def test_runs_in_a_forked_child(tiny_artifact):
    code = """
        import os, sys, numpy, assay.runtime
        model = assay.runtime.load(sys.argv[1], threads=2)
        x = numpy.ones((300, 96), numpy.float32)
        expected = model.run({"x": x})["y"]
        child = os.fork()
        if child == 0:
            good = numpy.array_equal(model.run({"x": x})["y"], expected)
            again = assay.runtime.load(sys.argv[1], threads=2)
            good = good and numpy.array_equal(again.run({"x": x})["y"], expected)
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
    """
    _in_a_fresh_process(code, tiny_artifact)
