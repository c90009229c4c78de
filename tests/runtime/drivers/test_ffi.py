from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def _run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_torch_is_not_imported_and_not_hidden_afterwards():
    _run("""
        import sys
        from importlib.util import find_spec
        before = list(sys.meta_path)
        from assay.runtime.drivers.ffi import import_tvm_ffi
        module = import_tvm_ffi()
        assert import_tvm_ffi() is module is sys.modules["tvm_ffi"]
        assert "torch" not in sys.modules
        assert sys.meta_path == before
    """)


def test_bindings_of_cuda_are_not_imported_and_not_hidden_afterwards(tmp_path):
    (tmp_path / "cuda" / "bindings").mkdir(parents=True)
    for name in ("__init__", "driver"):
        (tmp_path / "cuda" / "bindings" / f"{name}.py").write_text("class CUstream: pass")
    _run(f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from assay.runtime.drivers.ffi import import_tvm_ffi
        import_tvm_ffi()
        assert "cuda.bindings" not in sys.modules
        from cuda.bindings import driver
        assert driver.__file__.startswith({str(tmp_path)!r})
    """)


def test_other_threads_may_import_torch_meanwhile(tmp_path):
    (tmp_path / "torch.py").write_text("")
    _run(f"""
        import sys, threading
        sys.path.insert(0, {str(tmp_path)!r})
        from assay.runtime.drivers import ffi
        blocker = ffi._Blocker(threading.get_ident())
        sys.meta_path.insert(0, blocker)
        worker = threading.Thread(target=__import__, args=("torch",))
        try:
            import torch
        except ModuleNotFoundError:
            pass
        else:
            raise AssertionError
        worker.start()
        worker.join()
        assert "torch" in sys.modules
    """)


@pytest.mark.torch
def test_imported_torch_stays():
    pytest.importorskip("torch")
    _run("""
        import sys, torch
        from assay.runtime.drivers.ffi import import_tvm_ffi
        import_tvm_ffi()
        assert sys.modules["torch"] is torch
    """)


def test_missing_package():
    _run("""
        import sys
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name == "tvm_ffi":
                    raise ModuleNotFoundError(name=name)
        sys.meta_path.insert(0, Hide())
        from assay.errors import MissingDependencyError
        from assay.runtime.drivers.ffi import import_tvm_ffi
        try:
            import_tvm_ffi()
        except MissingDependencyError as error:
            assert "tvm_ffi" in str(error)
        else:
            raise AssertionError
        assert len([f for f in sys.meta_path if type(f).__name__ == "_Blocker"]) == 0
    """)
