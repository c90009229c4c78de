from __future__ import annotations

import msgspec
import pytest

from assay.errors import CapacityError, UsageError
from assay.runtime.generate.cache import KvCache, page_bytes
from assay.runtime.generate.estimate import (
    check_fits,
    choose_context,
    estimate_memory,
    largest_context,
    runtime_bytes,
)
from assay.runtime.generate.paged_decoder import pages_needed
from assay.runtime.manifest import FileDigest, Workspace


@pytest.fixture
def manifest(llama, make_manifest, make_level):
    level = make_level("native", workspace=Workspace(default_bytes=10, maximum_bytes=1_000_000))
    return make_manifest(decoder=llama.make_info(context_length=10_000), levels=(level,))


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_bytes_of_a_page_are_those_of_the_cache(llama, dtype):
    info = llama.make_info(cache_dtype=dtype)
    assert KvCache(info, 7).nbytes == 7 * page_bytes(info)


@pytest.mark.parametrize(
    ("context", "sequences", "window", "pages"),
    [
        (1, 1, None, 1),
        (32, 1, None, 1),
        (33, 2, None, 4),
        (4096, 3, None, 384),
        (50, 1, 8, 2),
        (4096, 1, 64, 6),
    ],
)
def test_pages(llama, context, sequences, window, pages):
    assert pages_needed(llama.make_info(window=window), context, sequences) == pages


def test_the_parts(manifest):
    estimate = estimate_memory(manifest, manifest.levels[0], context=320, sequences=2)
    info = manifest.decoder
    assert estimate.weights == sum(weight.bytes for weight in manifest.weights)
    assert estimate.cache == 20 * page_bytes(info)
    assert estimate.workspace == 1_000_000 + 16 * info.vocabulary * 4
    assert estimate.total == estimate.weights + estimate.cache + estimate.workspace + estimate.runtime


def test_the_tokenizer_counts(llama):
    plain = runtime_bytes(llama.make_info(), {})
    info = llama.make_info(tokenizer="tokenizer.json", vocabulary=50_000)
    file = FileDigest(sha256="0" * 64, bytes=1_000_000)
    assert runtime_bytes(info, {"tokenizer.json": file}) == plain + 32_000_000
    assert runtime_bytes(info, {}) == plain + 50_000_000


def test_the_largest_context(manifest):
    level = manifest.levels[0]
    for available in (66_000_000, 70_000_000, 100_000_000):
        context = largest_context(manifest, level, sequences=2, available=available)
        below = [
            estimate_memory(manifest, level, context=each, sequences=2).total <= available
            for each in (max(1, context), context + 1)
        ]
        assert below == [context > 0, context == 10_000 and below[1]]
    assert largest_context(manifest, level, sequences=1, available=10) == 0
    assert largest_context(manifest, level, sequences=1, available=1 << 40) == 10_000


def test_what_fits_passes(manifest):
    level = manifest.levels[0]
    estimate = check_fits(manifest, level, context=64, sequences=1, available=1 << 40)
    assert estimate == estimate_memory(manifest, level, context=64, sequences=1)


def test_what_does_not_fit_is_told_with_figures(manifest):
    level = manifest.levels[0]
    with pytest.raises(
        CapacityError, match=r"cache \d+\.\d MB for 4 x 9000 tokens, .* 75\.0 MB are free"
    ) as error:
        check_fits(manifest, level, context=9000, sequences=4, available=75_000_000)
    assert "for 4 sequences would fit" in str(error.value)
    with pytest.raises(CapacityError, match="No context fits"):
        check_fits(manifest, level, context=1, sequences=1, available=1000)


def test_one_sequence_may_fit_where_several_do_not(manifest):
    level = manifest.levels[0]
    one = estimate_memory(manifest, level, context=32, sequences=1).total
    with pytest.raises(CapacityError) as error:
        check_fits(manifest, level, context=64, sequences=4000, available=one + 100)
    assert "tokens for one sequence would fit" in str(error.value)


def test_the_context(llama):
    info = llama.make_info(context_length=10_000)
    assert choose_context(info, None) == 4096
    assert choose_context(llama.make_info(), None) == 256
    assert choose_context(info, 10_000) == 10_000
    for wrong in (0, -1, 10_001):
        with pytest.raises(UsageError, match=f"from 1 to the model's 10000 tokens, not {wrong}"):
            choose_context(info, wrong)


def test_a_level_without_a_plan(manifest):
    level = msgspec.structs.replace(manifest.levels[0], workspace=None)
    assert estimate_memory(manifest, level, context=64, sequences=1).workspace < 10_000
