from __future__ import annotations

import numpy as np
import pytest

from assay.errors import UsageError
from assay.runtime.generate.stops import StopStrings


def test_nothing_stops():
    stops = StopStrings()
    assert stops.add("any") == "any"
    assert stops.end() == ""
    assert stops.found is None


def test_what_may_be_a_beginning_is_held_back():
    stops = StopStrings(["<end>", "\n\n"])
    assert [stops.add(text) for text in ("a<", "e", "x", "\n", "b<en", "d>c")] == [
        "a", "", "<ex", "", "\nb", "",
    ]  # fmt: skip
    assert stops.found == "<end>"
    assert stops.add("more") == ""
    assert stops.end() == ""


def test_the_end_gives_what_was_held():
    stops = StopStrings(["stop"])
    assert stops.add("a sto") == "a "
    assert stops.end() == "sto"
    assert stops.found is None


@pytest.mark.parametrize("seed", range(20))
def test_any_pieces_give_the_text_before_the_first_stop(seed):
    generator = np.random.default_rng(seed)
    text = "".join(generator.choice(list("ab"), 60))
    wanted = ["abba", "aabab", "bbbb"]
    stops, shown = StopStrings(wanted), ""
    start = 0
    while start < len(text):
        size = int(generator.integers(1, 6))
        shown += stops.add(text[start : start + size])
        start += size
    shown += stops.end()
    ends = [text.index(stop) for stop in wanted if stop in text]
    assert shown == text[: min(ends, default=len(text))]


def test_an_empty_stop_is_refused():
    with pytest.raises(UsageError, match="must not be empty"):
        StopStrings(["a", ""])
