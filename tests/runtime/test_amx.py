from __future__ import annotations

import pytest

from assay.errors import CpuFeatureError
from assay.runtime import session
from assay.runtime.amx import request_tiles
from assay.runtime.cpu import detect_cpu
from assay.runtime.levels import Choice


def test_permission_is_refused_exactly_where_there_are_no_tiles():
    if "amxtile" in detect_cpu().features:
        request_tiles()
        return
    with pytest.raises(CpuFeatureError, match="does not let this process use AMX tiles"):
        request_tiles()


def test_it_is_asked_for_before_code_with_tiles_is_loaded(tiny, make_level, tmp_path, monkeypatch):
    def refuse():
        raise CpuFeatureError("refused")

    monkeypatch.setattr("assay.runtime.amx.request_tiles", refuse)
    session.load(tiny.write(tmp_path / "plain"))
    path = tiny.write(tmp_path / "tiles", levels=(make_level("amx", "amx_tile"),))
    monkeypatch.setattr(session, "choose", lambda manifest, name, device: Choice(level=manifest.levels[0]))
    with pytest.raises(CpuFeatureError, match="refused"):
        session.load(path)
