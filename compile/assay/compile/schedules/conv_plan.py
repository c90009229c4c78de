"""How a convolution is computed: directly or by Winograd's minimal filtering, and in which blocks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from assay.compile.schedules.multiply_add import MultiplyAdd, PairsOf16, unit_for
from assay.compile.schedules.tiles import choose_panel_width
from assay.compile.targets.target import DotProduct, VectorUnit

__all__ = [
    "ConvAlgorithm",
    "ConvPlan",
    "ConvShape",
    "choose_plan",
    "direct_plan",
    "integer_plan",
    "winograd_plan",
]

# Bytes of filters that arrive in a cycle: between what L3 gives and what memory gives to one core.
_FILTER_BYTES = 6.0
# Share of the multiply-adds' peak that a direct convolution reaches, its padding and tails included.
_DIRECT_EFFICIENCY = 0.93
# Cycles in which a direct convolution of integers multiplies one vector of outputs by one K.
_QUADS_CYCLES, _PAIRS_CYCLES = 0.21, 0.3
# Cycles to start and to store one tile of the micro-kernel.
_TILE_CYCLES = 20.0
# Blocks that threads share, or groups of panels where there are fewer blocks.
_SHARES = 8
# Tiles of a block: enough for the panels to be worth fetching.
_FEWEST_TILES, _TILES = 14, 49
# A plan with larger filters has to be this much faster: they take room in the artifact and in memory.
_WORTH_LARGER = 0.95


class ConvAlgorithm(StrEnum):
    """``winograd2``, ``winograd4``: F(2x2, 3x3) and F(4x4, 3x3)."""

    DIRECT = "direct"
    WINOGRAD2 = "winograd2"
    WINOGRAD4 = "winograd4"

    @property
    def outputs(self) -> int:
        """Rows and columns of one output tile."""
        return {"direct": 1, "winograd2": 2, "winograd4": 4}[self.value]


@dataclass(frozen=True, kw_only=True)
class _Costs:
    """Cycles of one vector of products by one K, and of a transformation for one position of a tile and one
    vector of 32-bit channels; ``element_bytes``: of transformed inputs and filters."""

    product: float
    data: float
    inverse: float
    element_bytes: int


_FLOATS = _Costs(product=0.5 / _DIRECT_EFFICIENCY, data=4.0, inverse=5.5, element_bytes=4)
_INTEGERS = _Costs(product=_PAIRS_CYCLES, data=1.0, inverse=2.0, element_bytes=2)


@dataclass(frozen=True, kw_only=True)
class ConvShape:
    """A convolution as the choice sees it.

    ``batch``, ``height``, ``width``: of the output, as expected. ``inputs``, ``outputs``: channels of one
    group. ``unit_steps``: whether strides and dilation are 1.
    """

    batch: int
    height: int
    width: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    unit_steps: bool
    groups: int


@dataclass(frozen=True, kw_only=True)
class ConvPlan:
    """The choice for one convolution.

    ``panel_width``: output channels of one panel of filters. ``tiles``: output tiles of one block, whose
    transformed input is multiplied at once; ``panels``: panels multiplied before their outputs are
    transformed back, a divisor of the number of panels. Both are 1 where the convolution is direct.
    """

    algorithm: ConvAlgorithm
    panel_width: int
    tiles: int = 1
    panels: int = 1


def choose_plan(unit: VectorUnit, shape: ConvShape) -> ConvPlan:
    """The plan with the least estimated time, with a preference for small filters."""
    best = direct_plan(unit, shape)
    if not _is_minimal(shape):
        return best
    cycles = _direct_cycles(unit, shape)
    for algorithm in (ConvAlgorithm.WINOGRAD2, ConvAlgorithm.WINOGRAD4):
        plan = winograd_plan(unit, shape, algorithm)
        estimate = _winograd_cycles(unit, shape, plan, _FLOATS)
        if estimate < _WORTH_LARGER * cycles:
            best, cycles = plan, estimate
    return best


def integer_plan(unit: VectorUnit, shape: ConvShape, form: MultiplyAdd) -> ConvPlan | None:
    """F(2x2, 3x3) of 8-bit integers where it is estimated to be faster than a direct sum by ``form``.

    Its products are those of ``PairsOf16``. None where there are better instructions.
    """
    if not _is_minimal(shape) or unit.dot != DotProduct.MULTIPLY_ADD:
        return None
    products = PairsOf16()
    plan = winograd_plan(unit_for(products, unit), shape, ConvAlgorithm.WINOGRAD2, _INTEGERS.element_bytes)
    taps = 9 * shape.inputs
    each = _PAIRS_CYCLES if isinstance(form, PairsOf16) else _QUADS_CYCLES
    outputs = shape.batch * shape.height * shape.width * -(-shape.outputs // unit.lanes())
    direct = outputs * taps * each + form.depth * taps * shape.outputs / 4 / _FILTER_BYTES
    estimate = _winograd_cycles(unit, shape, plan, _INTEGERS)
    return plan if estimate < _WORTH_LARGER * direct else None


def _is_minimal(shape: ConvShape) -> bool:
    """Whether Winograd's minimal filtering computes a convolution."""
    return shape.kernel == (3, 3) and shape.unit_steps and shape.groups == 1


def direct_plan(unit: VectorUnit, shape: ConvShape) -> ConvPlan:
    """The plan of a direct convolution."""
    rows = shape.batch * shape.height * shape.width
    width = choose_panel_width(unit, rows, shape.outputs)
    return ConvPlan(algorithm=ConvAlgorithm.DIRECT, panel_width=width)


def winograd_plan(
    unit: VectorUnit, shape: ConvShape, algorithm: ConvAlgorithm, element_bytes: int = 4
) -> ConvPlan:
    """The blocks of F(m x m, 3x3): the transformed input of one fits half of L2, if the filters fit too.

    Filters larger than that stream past each block, which then has tiles enough to be worth it. Transformed
    inputs and filters take ``element_bytes``.
    """
    positions = (algorithm.outputs + 2) ** 2
    total = _tiles(shape, algorithm)
    fitting = unit.l2_bytes // 2 // (element_bytes * positions * shape.inputs)
    most = _TILES
    if element_bytes * positions * shape.inputs * shape.outputs <= 2 * unit.l2_bytes:
        most = max(_FEWEST_TILES, min(fitting, _TILES))
    blocks = 1 if total <= _TILES else -(-total // most)
    tiles = -(-total // blocks)
    width = choose_panel_width(unit, tiles, shape.outputs)
    number = -(-shape.outputs // width)
    if blocks >= _SHARES:
        room = max(1, unit.l2_bytes // 4 // (4 * positions * tiles * width))
    else:
        room = max(1, number // _SHARES)
    panels = max(d for d in range(1, number + 1) if number % d == 0 and d <= room)
    return ConvPlan(algorithm=algorithm, panel_width=width, tiles=tiles, panels=panels)


def _tiles(shape: ConvShape, algorithm: ConvAlgorithm) -> int:
    m = algorithm.outputs
    return shape.batch * -(-shape.height // m) * -(-shape.width // m)


def _direct_cycles(unit: VectorUnit, shape: ConvShape) -> float:
    taps = shape.kernel[0] * shape.kernel[1] * shape.inputs
    pixels = shape.batch * shape.height * shape.width
    filters = 4 * taps * shape.outputs
    return pixels * taps * shape.outputs / (2 * unit.lanes() * _DIRECT_EFFICIENCY) + filters / _FILTER_BYTES


def _winograd_cycles(unit: VectorUnit, shape: ConvShape, plan: ConvPlan, costs: _Costs) -> float:
    positions = (plan.algorithm.outputs + 2) ** 2
    lanes = unit.lanes()
    blocks = -(-_tiles(shape, plan.algorithm) // plan.tiles)
    columns = -(-shape.outputs // plan.panel_width) * plan.panel_width
    vectors = columns // lanes
    # About twelve accumulators in the tile of either vector unit.
    started = plan.tiles * vectors / 12 * _TILE_CYCLES
    product = plan.tiles * max(shape.inputs, 1) * vectors * costs.product + started
    transformations = plan.tiles * (costs.data * shape.inputs / lanes + costs.inverse * vectors)
    filters = costs.element_bytes * positions * shape.inputs * columns
    return positions * blocks * (product + transformations) + filters / _FILTER_BYTES
