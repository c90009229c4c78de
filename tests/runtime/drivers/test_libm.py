from __future__ import annotations

import ctypes

import pytest

from assay.runtime.drivers import libm


def _cube_root(library: ctypes.CDLL) -> float:
    library.cbrt.argtypes, library.cbrt.restype = [ctypes.c_double], ctypes.c_double
    return float(library.cbrt(27.0))


def test_it_computes():
    assert _cube_root(libm.load_libm()) == pytest.approx(3.0)


def test_where_it_has_another_name_it_is_looked_for(monkeypatch):
    monkeypatch.setattr(libm, "_GLIBC", "libm.so.that-is-not-there")
    assert _cube_root(libm.load_libm(ctypes.RTLD_GLOBAL)) == pytest.approx(3.0)


def test_a_system_without_it(monkeypatch):
    monkeypatch.setattr(libm, "_GLIBC", "libm.so.that-is-not-there")
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(OSError, match="that-is-not-there"):
        libm.load_libm()
