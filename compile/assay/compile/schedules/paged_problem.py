"""Attention over a paged cache: what the kernel of one layer computes, and the buffers that it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tvm import tirx

from assay.compile.decoders.interface import PAGE_TOKENS, CacheDType
from assay.compile.schedules.ir import Buffer, Expr, i64

__all__ = ["GATHERED", "PAGE_TOKENS", "CacheDType", "PagedBuffers", "PagedProblem", "Place"]

GATHERED = "assay.gathered"
"""Attribute of a kernel: tables of which it reads a row for each id, and the ids, names by names as JSON."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where in a model a call of the kernel stands: what differs between layers that share one kernel.

    ``window``: how many tokens a token sees, itself included; None for all.
    """

    layer: int
    window: int | None = None

    def numbers(self) -> tuple[int, int]:
        """What the kernel reads as ``place``: the layer, and a window that no sequence exceeds for None."""
        return self.layer, (1 << 30) if self.window is None else self.window


@dataclass(frozen=True, kw_only=True)
class PagedProblem:
    """Causal attention of the rows of several sequences, each over its own past in the cache and over itself.

    ``heads`` query heads share ``kv_heads`` heads of keys and values, consecutive ones the same. Rotary
    embedding turns the first ``rotary_dim`` elements of queries and keys (0: none), element i against
    i + rotary_dim / 2, before keys are written. Scores are ``scale * q . k``, and with ``softcap`` c > 0
    then ``c * tanh(score / c)``. The cache is of ``layers`` layers. ``positions``: rows of the tables of
    cosines and sines.
    """

    heads: int
    kv_heads: int
    head_dim: int
    rotary_dim: int
    positions: int
    scale: float
    softcap: float
    layers: int
    cache_dtype: CacheDType

    def __post_init__(self) -> None:
        if self.kv_heads < 1 or self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads do not share {self.kv_heads} heads of keys and values")
        if self.rotary_dim % 2 or not 0 <= self.rotary_dim <= self.head_dim:
            raise ValueError(f"{self.rotary_dim} elements of {self.head_dim} cannot be turned in pairs")

    @property
    def group(self) -> int:
        """Query heads that share one head of keys and values."""
        return self.heads // self.kv_heads

    @property
    def columns(self) -> int:
        """Columns of q, k and v side by side."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def quantized(self) -> bool:
        """Whether the cache holds integers with scales beside them."""
        return self.cache_dtype == "int8"

    def to_text(self, place: Place) -> str:
        """The problem and the place of one call as text."""
        return json.dumps([asdict(self), asdict(place)], sort_keys=True)

    @staticmethod
    def from_text(text: str) -> tuple[PagedProblem, Place]:
        """The inverse of ``to_text``."""
        problem, place = json.loads(text)
        return PagedProblem(**problem), Place(**place)


@dataclass(frozen=True, kw_only=True)
class PagedBuffers:
    """The parameters of the kernel, in order; extents that are symbolic are the function's own variables.

    ``qkv`` float32 [1, tokens, columns]: all heads of q, then of k, then of v, not rotated.
    ``cosines``, ``sines`` float32 [positions, rotary_dim / 2]; None without rotary embedding.
    ``position_ids`` int64 [1, tokens]: rows of those tables; to be clamped to them.
    ``past_lengths`` int32 [sequences]: tokens in the cache before the call.
    ``sequence_offsets`` int32 [sequences + 1]: rows of sequence s are offsets[s] to offsets[s + 1] - 1.
    ``page_table`` int32 [sequences, table_width]: the page of tokens 32 p to 32 p + 31 of a sequence.
    ``place`` int32 [2]: layer, window (as ``Place.numbers``).
    ``cache`` [pages, layers, 2, kv_heads, 32 * head_dim], written in place: keys of a page as
    [head_dim, 32], values as [32, head_dim].
    ``scales`` float32 [pages, layers, 2, kv_heads, 32], for an int8 cache, written in place: a token's scale,
    the largest magnitude of its head over 127; None otherwise.
    ``output`` float32 [1, tokens, heads * head_dim].
    """

    qkv: Buffer
    cosines: Buffer | None
    sines: Buffer | None
    position_ids: Buffer
    past_lengths: Buffer
    sequence_offsets: Buffer
    page_table: Buffer
    place: Buffer
    cache: Buffer
    scales: Buffer | None
    output: Buffer

    @property
    def gathered(self) -> str:
        """The attribute ``GATHERED`` of a kernel of these buffers."""
        tables = {"cosines": self.cosines, "sines": self.sines}
        return json.dumps({name: "position_ids" for name, table in tables.items() if table is not None})

    @staticmethod
    def declare(
        problem: PagedProblem, tokens: int | None = None, sequences: int | None = None
    ) -> PagedBuffers:
        """Buffers of ``problem``; ``tokens`` and ``sequences`` where they are known."""
        rows = _extent("tokens", tokens)
        count = _extent("sequences", sequences)
        pages, width = _extent("pages", None), _extent("table_width", None)
        table = [problem.positions, problem.rotary_dim // 2]
        rotary = problem.rotary_dim > 0
        planes = [pages, problem.layers, 2, problem.kv_heads]
        return PagedBuffers(
            qkv=_buffer("qkv", [1, rows, problem.columns], "float32"),
            cosines=_buffer("cosines", table, "float32") if rotary else None,
            sines=_buffer("sines", table, "float32") if rotary else None,
            position_ids=_buffer("position_ids", [1, rows], "int64"),
            past_lengths=_buffer("past_lengths", [count], "int32"),
            sequence_offsets=_buffer("sequence_offsets", [count + 1], "int32"),
            page_table=_buffer("page_table", [count, width], "int32"),
            place=_buffer("place", [2], "int32"),
            cache=_buffer("cache", [*planes, PAGE_TOKENS * problem.head_dim], problem.cache_dtype),
            scales=_buffer("scales", [*planes, PAGE_TOKENS], "float32") if problem.quantized else None,
            output=_buffer("output", [1, rows, problem.heads * problem.head_dim], "float32"),
        )

    @property
    def tokens(self) -> Expr:
        """Rows of all sequences."""
        return self.qkv.ty.shape[1]

    @property
    def sequences(self) -> Expr:
        """Sequences of the call."""
        return self.past_lengths.ty.shape[0]

    def params(self) -> list[Buffer]:
        """The parameters that there are, in order."""
        every = (
            self.qkv, self.cosines, self.sines, self.position_ids, self.past_lengths, self.sequence_offsets,
            self.page_table, self.place, self.cache, self.scales, self.output,
        )  # fmt: skip
        return [buffer for buffer in every if buffer is not None]


def _extent(name: str, known: int | None) -> Expr:
    return tirx.Var(name, "int64") if known is None else i64(known)


def _buffer(name: str, shape: Sequence[int | Expr], dtype: str) -> Buffer:
    return tirx.decl_buffer([i64(s) for s in shape], dtype, name=name)
