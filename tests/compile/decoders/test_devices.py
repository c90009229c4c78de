"""A language model of quantized weights on devices: its tokens, and where its cache lies."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from assay.compile.build import build_artifact
from assay.compile.decoders.interface import DecoderOptions
from assay.errors import CapacityError
from assay.runtime import Decoder, load_decoder
from assay.runtime.devices import find_devices
from assay.runtime.manifest import Execution

pytestmark = pytest.mark.slow

PROMPT = [3, 5, 7, 9, 11]
# Wide enough for blocks of 32 weights to a scale.
SHAPE: dict[str, Any] = {"hidden": 64, "inner": 96, "context": 128}


@pytest.fixture(
    scope="module", params=[("opencl", "int4"), ("vulkan", "int8"), ("opencl", "bf16")], ids="-".join
)
def artifact(
    request: pytest.FixtureRequest, tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Compiled for a device and for this CPU, its weights in 4 or 8 bits with a scale a block, or in 16."""
    api, scheme = request.param
    found = find_devices()[api]
    if not found.devices:
        pytest.skip(f"needs a device of {api}, such as ci/emulator.sh installs: {found.reason}")
    folder = tmp_path_factory.mktemp(api)
    built = build_artifact(
        tiny.model_spec(tiny.Tiny(**SHAPE), folder, eos_ids=()),
        target=f"{api},x86-64-v3",
        scheme=scheme,
        cache=folder / "cache",
        output=folder / "artifact",
        decoder=DecoderOptions(max_tokens=24, max_sequences=3, max_rows=12, cache_dtype="float32"),
    )
    executed = {level.target.name: level.executed for level in built.manifest.levels}
    assert executed[api] is not Execution.NEVER
    return built.path


def on_device(artifact: Path) -> Decoder:
    api = load_api(artifact)
    decoder = load_decoder(artifact, context=96, sequences=3, device=api)
    assert decoder.device is not None
    assert decoder.device.api == api
    return decoder


def load_api(artifact: Path) -> str:
    from assay.runtime.artifact import open_artifact

    return next(level.target.api for level in open_artifact(artifact).manifest.levels if level.target.api)


def test_greedy_tokens_are_those_of_the_cpu(artifact: Path) -> None:
    expected = load_decoder(artifact, context=96, device="cpu").generate(PROMPT, max_new_tokens=24).result()
    found = on_device(artifact).generate(PROMPT, max_new_tokens=24).result()
    assert found.tokens == expected.tokens
    assert len(found.tokens) == 24


def test_the_cache_stays_on_the_device(artifact: Path) -> None:
    decoder = on_device(artifact)
    place = decoder.sequence()
    first = decoder.forward([(place, PROMPT)])
    # Nothing was written on the host, and what is written there changes nothing.
    for array in decoder.paged.cache.arrays:
        assert not array.any()
        array[...] = 7
    place.truncate(len(PROMPT) - 1)
    np.testing.assert_array_equal(decoder.forward([(place, PROMPT[-1:])]), first)


def test_a_page_that_is_shared_is_copied_there(artifact: Path) -> None:
    decoder = on_device(artifact)
    place = decoder.sequence()
    decoder.forward([(place, PROMPT)])
    other = place.fork()
    # Both write into the page that they share.
    logits = decoder.forward([(other, [13]), (place, [17])])
    alone = decoder.sequence()
    other.close()
    expected = decoder.forward([(alone, [*PROMPT, 13])])
    np.testing.assert_allclose(logits[:1], expected, atol=2e-4)
    assert place.tokens == [*PROMPT, 17]


def test_a_cache_that_the_device_has_no_room_for(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from assay.runtime.drivers.plan_device import DeviceCalls

    def refuse(self: Any, arrays: Any) -> None:
        raise CapacityError("It has no buffers of so many bytes.")

    monkeypatch.setattr(DeviceCalls, "keep", refuse)
    with pytest.raises(CapacityError, match="cache does not fit on the device") as caught:
        on_device(artifact)
    assert "smaller context" in (caught.value.hint or "")
