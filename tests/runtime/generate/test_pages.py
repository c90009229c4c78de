from __future__ import annotations

import numpy as np
import pytest

from assay.errors import CapacityError
from assay.runtime.generate.pages import PagePool, SequencePages

SIZE = 4
OPERATIONS = ["open", "append", "fork", "truncate", "close"]


class Model:
    """Sequences over a memory of tokens: what each of them would read is compared with a plain list."""

    def __init__(self, pages: int, context: int, window: int | None, rollback: int) -> None:
        self.pool = PagePool(pages, SIZE)
        self.memory = np.full((pages, SIZE), -1)
        self.context, self.window, self.rollback = context, window, rollback
        self.sequences: list[tuple[SequencePages, list[int]]] = []

    def open(self) -> None:
        pages = SequencePages(self.pool, self.context, window=self.window, rollback=self.rollback)
        self.sequences.append((pages, []))

    def append(self, index: int, tokens: list[int]) -> None:
        pages, naive = self.sequences[index]
        copy = pages.reserve(len(tokens))
        if copy is not None:
            self.memory[copy.destination] = self.memory[copy.source]
        for offset, token in enumerate(tokens):
            position = pages.length + offset
            self.memory[pages.table[position // SIZE], position % SIZE] = token
        pages.advance(len(tokens))
        naive.extend(tokens)

    def check(self) -> None:
        held: dict[int, int] = {}
        for pages, naive in self.sequences:
            assert pages.length == len(naive)
            first = 0 if self.window is None else max(0, len(naive) - self.window + 1)
            for position in range(first, len(naive)):
                assert self.memory[pages.table[position // SIZE], position % SIZE] == naive[position]
            for page in pages.pages:
                held[page] = held.get(page, 0) + 1
        assert self.pool.free == self.pool.size - len(held)
        for page in range(self.pool.size):
            assert self.pool.holders(page) == held.get(page, 0)


@pytest.mark.parametrize("window", [None, 1, 6, 16])
@pytest.mark.parametrize("seed", range(4))
def test_random_operations_agree_with_plain_lists(window, seed):
    generator = np.random.default_rng(seed)
    model = Model(pages=24, context=48, window=window, rollback=5)
    counts = dict.fromkeys(["full", "appended", "truncated", "forked"], 0)
    model.open()
    for token in range(1500):
        operation = generator.choice(OPERATIONS, p=[0.05, 0.5, 0.15, 0.2, 0.1])
        if not model.sequences or (operation == "open" and len(model.sequences) < 8):
            model.open()
            continue
        index = int(generator.integers(len(model.sequences)))
        pages, naive = model.sequences[index]
        if operation == "append":
            count = int(generator.integers(0, 1 + min(9, model.context - len(naive))))
            try:
                model.append(index, [100 * token + i for i in range(count)])
                counts["appended"] += 1
            except CapacityError:
                counts["full"] += 1
        elif operation == "fork" and len(model.sequences) < 8:
            model.sequences.append((pages.fork(), list(naive)))
            counts["forked"] += 1
        elif operation == "truncate":
            length = max(0, len(naive) - int(generator.integers(0, 12)))
            if pages.can_truncate(length):
                pages.truncate(length)
                del naive[length:]
                counts["truncated"] += 1
            else:
                assert window is not None
        elif operation == "close":
            pages.close()
            del model.sequences[index]
        model.check()
    assert min(counts["appended"], counts["truncated"], counts["forked"]) > 20
    assert counts["full"] > 5 or window is not None
    for pages, _ in model.sequences:
        pages.close()
    assert model.pool.free == model.pool.size


def test_full_pool_changes_nothing():
    pool = PagePool(3, SIZE)
    first = SequencePages(pool, 64)
    first.reserve(6)
    first.advance(6)
    other = SequencePages(pool, 64)
    with pytest.raises(CapacityError, match="2 pages of 4 tokens are needed, and 1 of 3 are free"):
        other.reserve(5)
    assert pool.free == 1
    assert other.pages == ()
    other.reserve(4)


def test_copy_on_write_needs_a_page():
    pool = PagePool(2, SIZE)
    first = SequencePages(pool, 64)
    first.reserve(6)
    first.advance(6)
    second = first.fork()
    with pytest.raises(CapacityError):
        second.reserve(1)
    first.close()
    assert second.reserve(1) is None


def test_a_full_shared_page_is_not_copied():
    pool = PagePool(4, SIZE)
    first = SequencePages(pool, 64)
    first.reserve(SIZE)
    first.advance(SIZE)
    second = first.fork()
    assert second.reserve(1) is None
    assert second.pages[0] == first.pages[0]


def test_the_last_holder_writes_in_place():
    pool = PagePool(4, SIZE)
    first = SequencePages(pool, 64)
    first.reserve(2)
    first.advance(2)
    second = first.fork()
    copy = first.reserve(1)
    assert copy is not None
    assert copy.source == second.pages[0]
    assert second.reserve(1) is None


def test_window_holds_a_bounded_number_of_pages():
    pool = PagePool(5, SIZE)
    pages = SequencePages(pool, 1000, window=8, rollback=SIZE)
    for _ in range(900):
        pages.reserve(1)
        pages.advance(1)
    assert len(pages.pages) <= 5
    assert pages.can_truncate(900 - SIZE)
    assert not pages.can_truncate(800)
    with pytest.raises(ValueError, match="cannot go back from 900 tokens to 800"):
        pages.truncate(800)
    pages.truncate(0)
    assert pool.free == 5


def test_context_is_a_limit():
    pages = SequencePages(PagePool(9, SIZE), 10)
    pages.reserve(10)
    pages.advance(10)
    assert len(pages.table) == 3
    with pytest.raises(ValueError, match="beyond the context of 10"):
        pages.reserve(1)
