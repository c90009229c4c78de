from __future__ import annotations

import numpy as np
import pytest

from assay.benchmarks.llm.job import LanguageJob
from assay.benchmarks.llm.worker import measure_session


class Counting:
    """A model whose likeliest next token is the number of tokens so far, in a vocabulary of 1000."""

    def __init__(self, sequences: int) -> None:
        self.histories: list[list[int]] = [[] for _ in range(sequences)]
        self.calls: list[int] = []

    def advance(self, tokens):
        assert len(tokens) == len(self.histories)
        self.calls.append(len(tokens[0]))
        for history, own in zip(self.histories, tokens, strict=True):
            history += own
        logits = np.zeros((len(tokens), 1000), np.float32)
        for row, history in zip(logits, self.histories, strict=True):
            row[len(history)] = 1
        return logits

    def reset(self) -> None:
        self.histories = [[] for _ in self.histories]


def job(**changes) -> LanguageJob:
    fields = {
        "engine": "counting",
        "model": "counting",
        "artifact": "a",
        "canonical": None,
        "gguf": None,
        "folder": None,
        "threads": 1,
        "cpus": (0,),
        "sequences": 2,
        "prompts": ((1, 2, 3), (4, 5, 6)),
        "depths": (3, 20),
        "new_tokens": 5,
        "prefills": 3,
        "logits": None,
        "report": "r",
    }
    return LanguageJob(**{**fields, **changes})


def test_every_prefill_starts_from_nothing_and_decoding_follows_the_last():
    session = Counting(2)
    times, decodes, logits = measure_session(session, job())
    assert len(times) == 3
    assert logits.argmax(axis=-1).tolist() == [3, 3]
    assert [each.depth for each in decodes] == [3, 20]
    assert [len(each.seconds) for each in decodes] == [5, 5]
    # The tokens that come out are those that go in next.
    assert decodes[0].tokens == (3, 4, 5, 6, 7, 8)
    assert session.histories[0][:8] == [1, 2, 3, 3, 4, 5, 6, 7]


def test_a_deeper_point_is_reached_by_repeating_the_prompt():
    session = Counting(2)
    _, decodes, _ = measure_session(session, job())
    assert session.histories[1][8:20] == [[4, 5, 6][index % 3] for index in range(8, 20)]
    assert decodes[1].tokens[0] == 20
    assert len(session.histories[0]) == 25


@pytest.mark.parametrize("prefills", [1, 4])
def test_as_many_prefills_as_asked_for(prefills):
    session = Counting(2)
    times, _, _ = measure_session(session, job(prefills=prefills))
    # One more warms up.
    assert session.calls.count(3) == prefills + 1
    assert len(times) == prefills
    assert min(times) > 0
