from __future__ import annotations

import sys
from pathlib import Path

import pytest

from assay.benchmarks.plots import check_plot, plot_profile
from assay.benchmarks.profiling import Bound, KernelProfile, Profile
from assay.errors import MissingDependencyError, StorageError, UsageError


def make_profile(count: int = 3) -> Profile:
    kernels = tuple(
        KernelProfile(
            kernel=f"kernel{index}",
            calls=index + 1,
            seconds=1e-3,
            share=1 / count,
            operations=10**6 * index,
            touched=10**5,
            weights=0,
            scheduled=True,
            roof_seconds=5e-4,
            bound=tuple(Bound)[index % 3],
        )
        for index in range(count)
    )
    return Profile(
        kernels=kernels,
        threads=1,
        runs=1,
        kernel_seconds=1e-3 * count,
        unobserved=2e-3 * count,
        observed=3e-3 * count,
        own_calls=1,
        ceilings=None,
    )


@pytest.mark.parametrize(("name", "magic"), [("a.svg", b"<?xml"), ("a.png", b"\x89PNG")])
def test_a_picture_is_written(tmp_path, name, magic):
    pytest.importorskip("matplotlib", reason="needs the plot extra: pip install -e '.[plot]'")
    path = tmp_path / name
    plot_profile(make_profile(20), path, title="tiny, 1 thread")
    assert path.read_bytes().startswith(magic)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_the_same_profile_gives_the_same_svg(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra: pip install -e '.[plot]'")
    for name in ("a.svg", "b.svg"):
        plot_profile(make_profile(), tmp_path / name, title="tiny")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert "outside kernels" in text or "<path" in text


@pytest.mark.parametrize("name", ["a.pdf", "a", "a.json"])
def test_another_format(name):
    with pytest.raises(UsageError, match=r"writes \.svg or \.png"):
        check_plot(Path(name))


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError) as caught:
        check_plot(Path("a.svg"))
    assert "[plot]" in (caught.value.hint or "")


def test_a_folder_that_is_none(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the plot extra: pip install -e '.[plot]'")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        plot_profile(make_profile(), tmp_path / "file" / "a.svg", title="tiny")
