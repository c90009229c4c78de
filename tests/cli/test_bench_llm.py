from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "llm"], "no language model to measure"),
        (["bench", "llm", "x", "--set", "default"], "--set says nothing of language models"),
        (["bench", "llm", "x", "--depth", "10"], "too close together"),
        (["bench", "light-squeezenet", "--batch", "4"], "--batch says nothing of other models"),
        (["bench", "light-squeezenet", "--perplexity"], "--perplexity says nothing of other models"),
        (["bench", "kernels", "--depth", "4"], "--depth says nothing of the reference kernels"),
    ],
)
def test_what_does_not_fit_is_one_error(cli, arguments, message):
    assert message in cli(*arguments, code=2).stderr


def test_an_unknown_engine_is_named_before_anything_is_built(cli):
    assert "Did you mean llama.cpp?" in cli("bench", "llm", "x", "--engine", "lama.cpp", code=3).stderr


def test_an_artifact_of_another_model_is_not_measured(cli, make_artifact, product_file):
    result = cli("bench", "llm", make_artifact(), "--model", product_file, code=9)
    assert "was built from another model" in result.stderr
