from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "llm"], "no language model to measure"),
        (["bench", "llm", "x", "--set", "default"], "--set says nothing of language models"),
        (["bench", "llm", "x", "--engine", "lama.cpp"], "llama.cpp"),
        (["bench", "llm", "x", "--depth", "10"], "too close together"),
        (["bench", "light-squeezenet", "--batch", "4"], "--batch says nothing of other models"),
        (["bench", "kernels", "--depth", "4"], "--depth says nothing of the reference kernels"),
    ],
)
def test_what_does_not_fit_is_one_error(cli, arguments, message):
    assert message in cli(*arguments, code=2).stderr
