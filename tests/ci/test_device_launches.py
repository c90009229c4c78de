"""Launches of a call, counted in the launch plan of an artifact."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import assay.runtime.artifact
from assay.ci.device_launches import main
from assay.runtime.manifest import Input, SymbolicSize
from assay.runtime.plan import (
    Flavour,
    Kernel,
    Parameter,
    Place,
    Plan,
    Step,
    Storage,
    Symbol,
    Tensor,
    encode_plan,
)

# y = x of [n, 4] by way of two storages; the second kernel is launched for more than 8 rows only.
PARAMETERS = (Parameter(dtype="float32"), Parameter(dtype="float32", written=True))
PLAN = Plan(
    schema_version=1,
    flavour=Flavour.DEVICE,
    symbols=(Symbol(name="n", input=0, axis=0),),
    storages=(Storage(bytes=("*", "n", 16)), Storage(bytes=("*", "n", 16), output=True)),
    tensors=(
        Tensor(place=Place.INPUT, index=0, dtype="float32", shape=("n", 4)),
        Tensor(place=Place.STORAGE, index=0, dtype="float32", shape=("n", 4)),
        Tensor(place=Place.STORAGE, index=1, dtype="float32", shape=("n", 4)),
    ),
    inputs=(0,),
    weights=(),
    outputs=(2,),
    kernels=tuple(
        Kernel(name=name, file="code.cl", parameters=PARAMETERS, threads=(64, 1, 1))
        for name in ("copy", "long_copy")
    ),
    steps=(
        Step(kernel=0, arguments=(0, 1), grid=("n", 1, 1)),
        Step(kernel=1, arguments=(0, 1), grid=(("<", 8, "n"), 1, 1)),
        Step(kernel=0, arguments=(1, 2), grid=("n", 1, 1)),
    ),
)


@pytest.fixture(autouse=True)
def artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact for a CPU and for OpenCL."""
    levels = [
        SimpleNamespace(target=SimpleNamespace(name=name, api=api), entry=SimpleNamespace(plan=plan))
        for name, api, plan in (("x86-64-v3", None, None), ("opencl", "opencl", "lib/plan.json"))
    ]
    size = SymbolicSize(name="n", default=4, minimum=2, maximum=16)
    inputs = [Input(name="x", dtype="float32", shape=(size, 4))]
    opened = SimpleNamespace(
        manifest=SimpleNamespace(levels=levels, inputs=inputs), read=lambda name: encode_plan(PLAN)
    )
    monkeypatch.setattr(assay.runtime.artifact, "open_artifact", lambda path: opened)


def test_empty_grids_are_no_launches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.split() == ["2", "copy", "2", "launches"]
    assert main([str(tmp_path), "--target", "opencl", "--size", "n=9"]) == 0
    assert capsys.readouterr().out.split() == ["2", "copy", "1", "long_copy", "3", "launches"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--size", "n=17"], "n=17 is no size of n"),
        (["--size", "m=2"], "m=2 is no size of n"),
        (["--size", "n"], "n is not NAME=SIZE"),
        (["--target", "x86-64-v3"], "Name one of the targets"),
    ],
)
def test_bad_words(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main([str(tmp_path), *words]) != 0
    assert said in capsys.readouterr().err
