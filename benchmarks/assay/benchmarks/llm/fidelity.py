"""Where the greedy text of an artifact differs from that of another engine, and how near to a tie it was.

    python -m assay.benchmarks.llm.fidelity ARTIFACT --engine llama.cpp --engine torch

The other engine writes greedily; the artifact reads the same tokens, and at each says which it would have
taken. Before the first token on which they differ, both wrote the same text. Its perplexity is shown by
``assay quantize ARTIFACT``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.errors import AssayError, UsageError

if TYPE_CHECKING:
    from assay.benchmarks.llm.engine import LanguageFiles, LanguageSession
    from assay.runtime import Decoder

__all__ = ["PROMPTS", "Difference", "compare_greedy", "main"]

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):",
    "The three laws of thermodynamics state that",
    "A good recipe for bread needs",
    "In 1969, the first humans",
)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A step at which two engines, given the same tokens, take different ones.

    ``margin`` is by how much our logit of our token exceeds that of theirs, and ``their_margin`` by how much
    theirs of their token exceeds that of ours; ``distance`` is the root mean square of the difference of the
    logits, the mean of each row taken out.
    """

    step: int
    token: int
    their_token: int
    margin: float
    their_margin: float
    distance: float


def compare_greedy(
    ours: LanguageSession,
    theirs: LanguageSession,
    prompt: Sequence[int],
    new_tokens: int,
    ends: Sequence[int] = (),
) -> tuple[list[int], list[Difference]]:
    """The text that ``theirs`` writes, up to a token of ``ends``, and where ``ours`` would have differed."""
    ours.reset()
    theirs.reset()
    text: list[int] = []
    found: list[Difference] = []
    given = list(prompt)
    for step in range(new_tokens):
        wanted = theirs.advance([given])[0].astype(np.float64)
        actual = ours.advance([given])[0].astype(np.float64)
        token, other = int(actual.argmax()), int(wanted.argmax())
        if token != other:
            shift = (actual - actual.mean()) - (wanted - wanted.mean())
            found.append(
                Difference(
                    step=step,
                    token=token,
                    their_token=other,
                    margin=float(actual[token] - actual[other]),
                    their_margin=float(wanted[other] - wanted[token]),
                    distance=float(np.sqrt(np.mean(shift**2))),
                )
            )
        text.append(other)
        if other in ends:
            break
        given = [other]
    return text, found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m assay.benchmarks.llm.fidelity", description=__doc__)
    parser.add_argument("artifact", type=Path, help="of a model of the zoo")
    parser.add_argument("--engine", action="append", required=True, help="may be repeated")
    parser.add_argument("--new-tokens", type=int, default=64, help="for each of six prompts")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args(arguments)


def _files(artifact: Path) -> LanguageFiles:
    """The forms of the model behind an artifact."""
    from assay.benchmarks.llm.files import language_files
    from assay.compile.cache import BuildCache
    from assay.models.registry import find_model
    from assay.progress import SilentProgress
    from assay.runtime.artifact import open_artifact

    canonical = BuildCache().canonical(
        find_model(open_artifact(artifact, verify=False).manifest.model.name), SilentProgress()
    )
    return language_files(canonical.spec, artifact, canonical.path)


def _show_greedy(files: LanguageFiles, decoder: Decoder, options: argparse.Namespace) -> None:
    from assay.benchmarks.llm import language_engines

    prompts = [decoder.encode(text) for text in PROMPTS]
    context = max(map(len, prompts)) + options.new_tokens
    engines = language_engines()
    ours = engines["assay"].load(files, options.threads, context, 1)
    for name in options.engine:
        reason = engines[name].unavailable(files)
        if reason is not None:
            raise UsageError(f"{name} cannot be compared with: {reason}.")
        theirs = engines[name].load(files, options.threads, context, 1)
        for prompt, tokens in zip(PROMPTS, prompts, strict=True):
            text, found = compare_greedy(ours, theirs, tokens, options.new_tokens, decoder.info.eos_ids)
            same = found[0].step if found else len(text)
            print(f"{name}: {prompt!r}: the first {same} of {len(text)} tokens are the same, ", end="")
            print(f"{len(text) - len(found)} with the text before them given", flush=True)
            for each in found:
                pair = [decoder.tokenizer.decode([token]) for token in (each.token, each.their_token)]
                print(
                    f"    step {each.step}: {pair[0]!r} by {each.margin:.3f} over {pair[1]!r}, "
                    f"which {name} takes by {each.their_margin:.3f}; "
                    f"the logits differ by {each.distance:.3f} (root mean square)"
                )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was asked for; 0, or the code of an error whose line is on stderr."""
    from assay.benchmarks.llm.onnx_runtime import OnnxRuntimeDecoder, with_fast_products
    from assay.runtime import load_decoder

    options = _parse(arguments)
    try:
        files = _files(options.artifact)
        decoder = load_decoder(options.artifact, threads=options.threads, context=1024)
        with tempfile.TemporaryDirectory(prefix="assay-llm-") as folder:
            if OnnxRuntimeDecoder.name in options.engine:
                files = with_fast_products(files, Path(folder))
            _show_greedy(files, decoder, options)
    except AssayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
