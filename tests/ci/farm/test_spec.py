from __future__ import annotations

from pathlib import Path

import pytest

from assay.ci.farm.spec import read_spec
from assay.errors import UsageError

A = "[matrix]\nmodels = ['a']"


def _spec(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "nightly.toml"
    path.write_text(content)
    return path


def test_all_but_the_models_has_defaults(tmp_path: Path) -> None:
    spec = read_spec(_spec(tmp_path, "[matrix]\nmodels = ['light-squeezenet']"))
    assert (spec.matrix.targets, spec.matrix.jobs, spec.farm.retries) == (("native",), ("build", "bench"), 2)


def test_names_have_hyphens(tmp_path: Path) -> None:
    spec = read_spec(_spec(tmp_path, "[matrix]\nmodels = ['a']\n[farm]\nmost-load = 0.5\njob-seconds = 7"))
    assert (spec.farm.most_load, spec.farm.job_seconds) == (0.5, 7.0)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("[matrix]\nmodel = ['a']", r"\[matrix\] has no field 'model'", "Did you mean models?"),
        ("[matrx]\nmodels = ['a']", "there is no field 'matrx'", "Did you mean matrix?"),
        (f"{A}\n[farm]\nmost_load = 1", r"\[farm\] has no field 'most_load'", "Did you mean most-load?"),
        ("[matrix]\nmodels = ['a']\n[bench]\nzzz = 1", r"\[bench\] has no field 'zzz'", None),
        ("[farm]\nretries = 1", "missing required field `matrix`", None),
        ("[matrix]\nmodels = []", "length >= 1", None),
        ("[matrix]\nmodels = ['']", "length >= 1", None),
        ("[matrix]\nmodels = 'a'", "Expected `array`", None),
        ("[matrix]\nmodels = ['a']\nthreads = [0]", ">= 1", None),
        ("[matrix]\nmodels = ['a']\n[farm]\nretries = -1", ">= 0", None),
        ("[matrix]\nmodels = ['a']\n[farm]\nmost-load = 3.0", "<= 1", None),
        ("[matrix]\nmodels = ['a']\n[bench]\nseconds = nan", r"\$\.bench\.seconds", None),
        ("[matrix", "cannot be read", None),
    ],
)
def test_what_it_cannot_say(tmp_path: Path, content: str, message: str, hint: str | None) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_spec(_spec(tmp_path, content))
    assert hint is None or caught.value.hint == hint


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_spec(tmp_path / "none.toml")
