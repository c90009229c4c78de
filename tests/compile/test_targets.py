from __future__ import annotations

import itertools
from typing import Any

import pytest

from assay.compile.profiles import profiles
from assay.compile.schemes import schemes
from assay.compile.targets import Target, VectorUnit, find_target, find_targets, targets
from assay.compile.targets.native import native_target
from assay.errors import CpuFeatureError, UnknownNameError, UsageError
from assay.runtime.cpu import Cpu, canonical_feature

SSE4 = targets()["x86-64-v2"].features
AVX2 = targets()["x86-64-v3"].features
AVX512 = targets()["x86-64-v4"].features
VNNI = targets()["x86-64-v4-vnni"].features


def cpu(*features: str, machine: str = "x86_64") -> Cpu:
    """A CPU with these features, as /proc/cpuinfo names them."""
    return Cpu(
        machine=machine, system="linux", name="fake", features=frozenset(map(canonical_feature, features))
    )


@pytest.mark.parametrize("registry", [targets(), schemes(), profiles()], ids=["target", "scheme", "profile"])
def test_registry_entries_carry_their_name_and_a_description(registry: Any) -> None:
    assert len(registry)
    for name, entry in registry.items():
        assert entry.name == name
        assert entry.description


@pytest.mark.parametrize("registry", [targets(), schemes(), profiles()], ids=["target", "scheme", "profile"])
def test_second_entry_of_a_name_is_refused(registry: Any) -> None:
    name = next(iter(registry))
    with pytest.raises(ValueError, match="registered twice"):
        registry.add(name, registry[name])


@pytest.mark.parametrize(
    ("registry", "name", "meant"),
    [
        (targets(), "x86-64v4", "x86-64-v4"),
        (targets(), "cascadlake", "cascadelake"),
        (schemes(), "f23", "f32"),
        (profiles(), "relese", "release"),
    ],
)
def test_unknown_name_suggests_the_nearest(registry: Any, name: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        registry[name]
    assert name in raised.value.message
    assert meant in (raised.value.hint or "")


def test_unknown_target_is_refused_by_find_target() -> None:
    with pytest.raises(UnknownNameError, match="no target named 'sparc'"):
        find_target("sparc")


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("haswell", "x86-64-v3"),
        ("znver3", "x86-64-v3"),
        ("nehalem", "x86-64-v2"),
        ("ivybridge", "x86-64-v2"),
        ("skylake", "x86-64-v3"),
        ("skylake-avx512", "x86-64-v4"),
        ("cascadelake", "x86-64-v4-vnni"),
        ("icelake", "x86-64-v4-vnni"),
        ("znver2", "x86-64-v3"),
        ("znver4", "x86-64-v4-vnni"),
        ("znver5", "x86-64-v4-vnni"),
        ("sapphirerapids", "x86-64-v4-amx"),
    ],
)
def test_micro_architecture_names_a_target(alias: str, name: str) -> None:
    assert find_target(alias).name == name


@pytest.mark.parametrize(
    ("features", "name"),
    [
        (SSE4, "x86-64-v2"),
        (AVX2, "x86-64-v3"),
        (AVX512, "x86-64-v4"),
        ((*AVX2, "avx512f"), "x86-64-v3"),
        (VNNI, "x86-64-v4-vnni"),
        ((*AVX2, "avx512_vnni"), "x86-64-v3"),
    ],
)
def test_native_is_the_most_capable_target_that_the_cpu_has(features: tuple[str, ...], name: str) -> None:
    assert native_target(targets().values(), cpu(*features)).name == name


@pytest.mark.parametrize(
    "lacking", [cpu("sse2", "sse4_1"), cpu(*AVX512, machine="aarch64")], ids=["no SSE4.2", "other machine"]
)
def test_native_on_a_cpu_that_no_target_fits(lacking: Cpu) -> None:
    with pytest.raises(CpuFeatureError, match="No target fits"):
        native_target(targets().values(), lacking)


def test_targets_are_ordered_from_plain_to_capable() -> None:
    known: list[Target] = list(targets().values())
    for plain, capable in itertools.pairwise(known):
        if plain.triple != capable.triple:  # another machine begins
            continue
        assert set(plain.features) <= set(capable.features)
        assert plain.vector_unit.bits <= capable.vector_unit.bits


@pytest.mark.parametrize(("dtype", "lanes"), [("float32", 16), ("float64", 8), ("int8", 64), ("bool", 64)])
def test_lanes_of_a_register(dtype: str, lanes: int) -> None:
    assert VectorUnit(bits=512, registers=32).lanes(dtype) == lanes


@pytest.mark.parametrize(
    "names", ["x86-64-v4,haswell , nehalem", ["x86-64-v4", "x86-64-v2,znver3", "haswell"]]
)
def test_several_targets_are_ordered_from_plain_to_capable_each_once(names: Any) -> None:
    assert [target.name for target in find_targets(names)] == ["x86-64-v2", "x86-64-v3", "x86-64-v4"]


def test_several_targets_of_which_one_is_unknown_or_none_is_named() -> None:
    with pytest.raises(UnknownNameError, match="no target named 'sparc'"):
        find_targets("x86-64-v3,sparc")
    with pytest.raises(UsageError, match="No target"):
        find_targets(" ,")
