from __future__ import annotations

import os

import pytest

from assay.errors import CapacityError
from assay.models.sources.capacity import check_memory, memory_bytes


def test_what_does_not_fit_is_refused_with_figures() -> None:
    message = r"'x' needs at least 3\.0 GiB of memory to be built, and this machine has 2\.0 GiB"
    with pytest.raises(CapacityError, match=message):
        check_memory("'x'", 3 << 30, 2 << 30)
    check_memory("'x'", 2 << 30, 2 << 30)


def test_memory_is_at_most_the_machines() -> None:
    assert 1 << 20 < memory_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
