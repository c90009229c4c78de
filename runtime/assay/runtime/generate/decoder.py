"""A loaded decoder as users have it: text or tokens in, text and tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from assay.errors import InterfaceError, MissingDependencyError, TokenizerError, UsageError
from assay.runtime.generate.cache import KvCache
from assay.runtime.generate.chat_template import ChatTemplate
from assay.runtime.generate.engine import Engine
from assay.runtime.generate.generation import Completion, Generation, Writer, complete
from assay.runtime.generate.paged_decoder import CachedSequence, LogitsOf, PagedDecoder
from assay.runtime.generate.request import Limits, Request
from assay.runtime.generate.samplers.chain import Chain, make_chain
from assay.runtime.generate.speculation.draft_model import ModelDrafter
from assay.runtime.generate.speculation.drafter import Drafter
from assay.runtime.generate.speculation.ngram import NGramDrafter
from assay.runtime.generate.tokenizer import Tokenizer
from assay.runtime.manifest import DecoderInfo

if TYPE_CHECKING:
    import numpy.typing as npt

    from assay.runtime.devices.device import DeviceInfo

__all__ = ["Decoder", "Prompt"]

Prompt: TypeAlias = str | Sequence[int]

_DRAFT_TOKENS = 4


class Decoder:
    """A language model with a cache for ``sequences`` texts of ``context`` tokens; made by ``load_decoder``.

    Not for several threads at once. ``tokenizer_content`` is that of ``tokenizer.json``, ``template`` the
    source of a chat template; without them, tokens go in and out, and no chats. ``device``: what computes
    and holds the cache, None for the CPU.
    """

    def __init__(
        self,
        info: DecoderInfo,
        make_engine: Callable[[KvCache], Engine],
        *,
        name: str,
        context: int,
        sequences: int,
        threads: int,
        tokenizer_content: bytes | None = None,
        template: str | None = None,
        level: str = "native",
        device: DeviceInfo | None = None,
        executed: bool = True,
    ) -> None:
        self.name = name
        self.level = level
        self.device = device
        self.executed = executed
        self.info = info
        self.sequences = sequences
        self.paged = PagedDecoder(info, make_engine, context=context, sequences=sequences, threads=threads)
        self._tokenizer_content = tokenizer_content
        self._template = template

    @property
    def context(self) -> int:
        """Tokens that one sequence may have, the prompt's and the new ones."""
        return self.paged.context

    @property
    def threads(self) -> int:
        """Threads of one call, the calling one included; may be set."""
        return self.paged.threads

    @threads.setter
    def threads(self, count: int) -> None:
        if count < 1:
            raise UsageError(f"threads must be at least 1, not {count}.")
        self.paged.threads = count

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, read when it is first used.

        Raises TokenizerError where there is none or one that does not fit, and MissingDependencyError where
        the extra ``generate`` is not installed.
        """
        if self._tokenizer_content is None:
            raise TokenizerError(
                f"{self.name} has no tokenizer.", hint="Give token ids, or build it from a source with one."
            )
        return Tokenizer(self._tokenizer_content, self.info)

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The model's chat template. Raises as ``tokenizer`` does."""
        if self._template is None:
            raise TokenizerError(
                f"{self.name} has no chat template: it was not made for chats.",
                hint="Let it continue a text: assay generate ARTIFACT --prompt TEXT.",
            )
        tokens = (self.info.bos_ids[:1], self.info.eos_ids[:1])
        bos, eos = (self.tokenizer.token(ids[0]) or "" if ids else "" for ids in tokens)
        return ChatTemplate(self._template, bos_token=bos, eos_token=eos)

    def __repr__(self) -> str:
        return f"<Decoder {self.name}, context {self.context}, {self.threads} threads>"

    def sequence(self) -> CachedSequence:
        """A place in the cache, for ``generate`` to keep a text in between calls."""
        return self.paged.sequence()

    def forward(
        self, parts: Sequence[tuple[CachedSequence, Sequence[int]]], logits: LogitsOf = LogitsOf.LAST
    ) -> npt.NDArray[np.float32]:
        """Logits of tokens that are added to sequences, as ``PagedDecoder.forward`` says."""
        return self.paged.forward(parts, logits)

    def generate(
        self,
        prompt: Prompt,
        *,
        max_new_tokens: int | None = 256,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        seed: int | None = None,
        sequence: CachedSequence | None = None,
        ngram: bool = False,
        draft: Decoder | None = None,
        draft_tokens: int = _DRAFT_TOKENS,
        **sampling: float | None,
    ) -> Generation:
        """The text that follows ``prompt``, a text or token ids, as an iterator of pieces.

        It ends at one of the model's end tokens (unless ``ignore_eos``), before one of the strings ``stop``,
        after ``max_new_tokens`` (None: no limit) or where the context is full. ``sampling`` takes the
        samplers by name: ``temperature``, ``top_k``, ``top_p``, ``min_p``, ``repetition_penalty``; without
        any but the last, the most likely token is taken. The same ``seed`` gives the same text on the same
        machine.

        ``sequence`` keeps the text in the cache after the call, and what its tokens and those of the prompt
        have in common at the beginning is not computed again. With ``ngram``, or a ``draft`` model of the
        same vocabulary, up to ``draft_tokens`` tokens are proposed for the model to check at once; this
        changes how fast the text comes, and not its distribution.

        Raises InterfaceError for a prompt that is empty, longer than the context or of tokens that there are
        not, and UsageError for settings out of range; while it is iterated, CapacityError where the cache is
        full.
        """
        start = perf_counter()
        chain = make_chain(sampling)
        tokens = self.encode(prompt)
        seconds = perf_counter() - start
        request = self._request(
            tokens,
            self.sequence() if sequence is None else sequence,
            chain,
            np.random.default_rng(_seeds(seed)),
            self._limits(max_new_tokens, ignore_eos),
            self._drafter(ngram, draft),
            draft_tokens,
        )
        request.statistics.tokenize_seconds = seconds
        release = request.close if sequence is None else request.close_drafter
        return Generation(self.paged, self._writer(request, stop, prompt), release)

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int | None = 256,
        stop: Sequence[str] = (),
        ignore_eos: bool = False,
        seed: int | None = None,
        ngram: bool = False,
        draft_tokens: int = _DRAFT_TOKENS,
        **sampling: float | None,
    ) -> list[Completion]:
        """The texts that follow ``prompts``, ``sequences`` of them at a time; otherwise as ``generate``.

        Each has random numbers of its own, so that a text does not depend on which others there are.
        """
        chain = make_chain(sampling)
        limits = self._limits(max_new_tokens, ignore_eos)
        seeds = _seeds(seed).spawn(len(prompts))
        writers = []
        for prompt, each in zip(prompts, seeds, strict=True):
            generator = np.random.default_rng(each)
            tokens, drafter = self.encode(prompt), self._drafter(ngram, None)
            request = self._request(tokens, self.sequence(), chain, generator, limits, drafter, draft_tokens)
            writers.append(self._writer(request, stop, prompt))
        return complete(self.paged, writers, self.sequences)

    def encode(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt, checked. Raises as ``generate`` does."""
        if isinstance(prompt, str):
            tokens = self.tokenizer.encode(prompt)
        else:
            tokens = [int(token) for token in prompt]
        if not tokens:
            raise InterfaceError("The prompt is empty.", hint="Give at least one token to continue from.")
        self.paged.check(tokens)
        return tokens

    def _limits(self, max_new_tokens: int | None, ignore_eos: bool) -> Limits:
        if max_new_tokens is not None and max_new_tokens < 1:
            raise UsageError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
        ends = () if ignore_eos else self.info.eos_ids
        return Limits(new_tokens=max_new_tokens, ends=frozenset(ends))

    def _drafter(self, ngram: bool, draft: Decoder | None) -> Drafter | None:
        if draft is None:
            return NGramDrafter() if ngram else None
        if ngram:
            raise UsageError("Proposals come from n-grams or from a draft model, not from both.")
        if draft.info.vocabulary != self.info.vocabulary:
            raise InterfaceError(
                f"The draft {draft.name} has a vocabulary of {draft.info.vocabulary}, and {self.name} one of "
                f"{self.info.vocabulary}.",
                hint="A draft model must have the same tokens.",
            )
        known = (self._tokenizer_content, draft._tokenizer_content)
        if None not in known and known[0] != known[1] and not self.tokenizer.same_tokens(draft.tokenizer):
            raise TokenizerError(
                f"The tokens of {draft.name} and {self.name} differ.",
                hint="A draft model must have the same tokens.",
            )
        return ModelDrafter(draft.paged)

    def _request(
        self,
        tokens: list[int],
        sequence: CachedSequence,
        chain: Chain,
        generator: np.random.Generator,
        limits: Limits,
        drafter: Drafter | None,
        draft_tokens: int,
    ) -> Request:
        if draft_tokens < 1:
            raise UsageError(f"draft_tokens must be at least 1, not {draft_tokens}.")
        return Request(tokens, sequence, chain, generator, limits, drafter=drafter, draft_tokens=draft_tokens)

    def _writer(self, request: Request, stop: Sequence[str], prompt: Prompt) -> Writer:
        if isinstance(stop, str):
            stop = (stop,)
        if stop and self._tokenizer_content is None:
            raise TokenizerError(f"{self.name} has no tokenizer, which stop strings need.")
        return Writer(request, self._reader(needed=bool(stop) or isinstance(prompt, str)), stop)

    def _reader(self, *, needed: bool) -> Tokenizer | None:
        """What makes text of tokens; None where there is nothing for it and it is not ``needed``."""
        if self._tokenizer_content is None:
            return None
        try:
            return self.tokenizer
        except MissingDependencyError:
            if needed:
                raise
            return None


def _seeds(seed: int | None) -> np.random.SeedSequence:
    if seed is not None and seed < 0:
        raise UsageError(f"seed must be 0 or above, not {seed}.")
    return np.random.SeedSequence(seed)
