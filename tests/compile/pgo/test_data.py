from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from assay.compile.pgo.data import (
    KernelSample,
    ModelDigest,
    ProfileData,
    RunSample,
    merge_profiles,
    profile_schema,
    read_profile,
    write_profile,
)
from assay.errors import ProfileDataError

SCHEMA = Path(__file__).parents[3] / "docs" / "schema" / "profile-data.schema.json"


def profile(*, model: str = "a", machine: str = "m", seconds: float = 1.0, size: int = 8) -> ProfileData:
    place: dict[str, Any] = {"machine": machine, "target": "t", "threads": 1, "sizes": {"n": size}}
    return ProfileData(
        model=ModelDigest(name=model, canonical_digest=f"sha256:{ord(model[0]):064x}"),
        runs=(RunSample(**place, runs=2, seconds=seconds),),
        kernels=(
            KernelSample(
                **place, kernel="k", workload=None, shapes=((size, 4), ()), calls=6, seconds=seconds / 2
            ),
        ),
    )


def test_equal_places_are_added_up_and_others_kept_apart() -> None:
    merged = merge_profiles([profile(), profile(seconds=2.0), profile(size=16), profile(machine="other")])
    assert [(r.machine, r.sizes["n"], r.runs, r.seconds) for r in merged.runs] == [
        ("m", 16, 2, 1.0),
        ("m", 8, 4, 3.0),
        ("other", 8, 2, 1.0),
    ]
    assert sorted((k.calls, k.seconds) for k in merged.kernels) == [(6, 0.5), (6, 0.5), (12, 1.5)]


def test_the_order_of_merging_does_not_show() -> None:
    parts = [profile(), profile(size=16), profile(machine="other", seconds=0.5)]
    assert merge_profiles(parts) == merge_profiles(parts[::-1])
    assert merge_profiles([merge_profiles(parts[:2]), parts[2]]) == merge_profiles(parts)


def test_profiles_of_different_models_do_not_merge() -> None:
    with pytest.raises(ProfileDataError, match=r"different models: a .* and b "):
        merge_profiles([profile(), profile(model="b")])


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    write_profile(tmp_path / "p.json", profile())
    assert read_profile(tmp_path / "p.json") == profile()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    write_profile(path, profile())
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ProfileDataError, match="damaged or truncated"):
            read_profile(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "has schema 99"),
        ({"runs": 3}, "damaged"),
        ({"surprise": 1}, "unknown field `surprise`"),
        ({"model": {"name": "a", "canonical_digest": "sha256:0"}}, "damaged"),
    ],
)
def test_damaged_profiles(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**msgspec.to_builtins(profile()), **change}))
    with pytest.raises(ProfileDataError, match=message):
        read_profile(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileDataError, match="cannot be read"):
        read_profile(tmp_path / "none.json")


def test_the_published_schema_is_that_of_the_types() -> None:
    schema = json.loads(SCHEMA.read_text())
    assert schema == json.loads(json.dumps(profile_schema())), (
        f"write it anew: python -m assay.compile.pgo.data > {SCHEMA}"
    )
    written = json.loads(msgspec.json.encode(profile()))
    jsonschema.validate(written, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**written, "runs": 1}, schema)
