"""Which kernel computes a contraction of integers, and its weights packed for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax

from assay.compile.passes.quantized_values import Integers, typed
from assay.compile.schedules.amx import PANEL_WIDTH, takes_tiles
from assay.compile.schedules.context import ScheduleContext
from assay.compile.schedules.conv2d import ConvGeometry
from assay.compile.schedules.conv_plan import ConvShape, integer_plan
from assay.compile.schedules.int8 import (
    integer_conv2d,
    integer_matmul,
    ordered_conv2d,
    ordered_matmul,
    pack_integer_filters,
    pack_integer_panels,
    step_offsets,
    step_table,
)
from assay.compile.schedules.ir import as_int
from assay.compile.schedules.multiply_add import (
    MultiplyAdd,
    PairsOf16,
    QuadsOf8Saturating,
    integer_form,
    unit_for,
)
from assay.compile.schedules.step_order import order_steps
from assay.compile.schedules.tiles import choose_panel_width
from assay.compile.schedules.winograd import integer_winograd_conv2d, pack_integer_winograd_filters
from assay.compile.targets.target import DotProduct

__all__ = ["IntegerKernels"]


@dataclass(frozen=True, kw_only=True)
class IntegerKernels:
    """Emits contractions; each method gives the int32 sums, and the form that made them.

    ``contract(function, *tensors, **options)`` emits a tensor expression. ``winograd``: whether 3x3
    convolutions may trade larger filters for fewer multiplications.
    """

    context: ScheduleContext
    contract: Callable[..., Any]
    winograd: bool

    def rounds(self, largest: float) -> bool:
        """Whether numbers of magnitude up to ``largest`` are rounded to int32 by the target's instruction."""
        able = self.context.unit.dot in (DotProduct.MULTIPLY_ADD, DotProduct.VNNI, DotProduct.AMX)
        # Far enough inside int32 for a zero point to be added.
        return able and largest < 2.0**30

    def conv2d(
        self, x: Integers, filters: npt.NDArray[Any], zero: npt.NDArray[Any], geometry: ConvGeometry, out: Any
    ) -> tuple[Any, MultiplyAdd]:
        """OHWI ``filters`` whose zero points are ``zero`` [O], to an NHWC output of shape ``out``."""
        channels = filters.shape[0]
        flat = filters.reshape(channels, -1)
        form = self._form(flat, zero)
        minimal = self._minimal(x, filters, zero, geometry, out, form) if self.winograd else None
        if minimal is not None:
            return minimal, PairsOf16()
        rows = self._rows(list(out)[:3])
        width = self._width(form, rows, channels // geometry.groups, geometry.groups)
        packed = pack_integer_filters(typed(filters, zero, form), geometry, width, form.depth)
        if geometry.is_pointwise:
            return self._product(x, packed, form, channels), form
        return self._direct(x, packed, form, channels, geometry), form

    def matmul(
        self, x: Integers, matrix: npt.NDArray[Any], zero: npt.NDArray[Any], out: Any
    ) -> tuple[Any, MultiplyAdd]:
        """``matrix`` [K, N] whose zero points are ``zero`` [N], to an output of shape ``out``."""
        form, cols = self._form(matrix.T, zero), matrix.shape[1]
        width = self._width(form, self._rows(list(out)[:-1]), cols)
        packed = pack_integer_panels(typed(matrix.T, zero, form).T, width, form.depth)
        return self._product(x, packed, form, cols), form

    def _minimal(
        self,
        x: Integers,
        filters: npt.NDArray[Any],
        zero: npt.NDArray[Any],
        geometry: ConvGeometry,
        out: Any,
        form: MultiplyAdd,
    ) -> Any | None:
        """A 3x3 convolution by Winograd's minimal filtering, where that is faster than with ``form``."""
        batch, height, width, channels = (self.context.expected(extent) for extent in out)
        shape = ConvShape(
            batch=batch,
            height=height,
            width=width,
            inputs=filters.shape[3],
            outputs=channels // geometry.groups,
            kernel=geometry.kernel,
            unit_steps=geometry.strides == geometry.dilation == (1, 1),
            groups=geometry.groups,
        )
        plan = integer_plan(self.context.unit, shape, form)
        if plan is None or not isinstance(x.zero, int):
            return None
        packed = pack_integer_winograd_filters(typed(filters, zero, PairsOf16()), plan)
        if packed is None:
            return None
        return self.contract(
            integer_winograd_conv2d, x.q, relax.const(packed),
            geometry=geometry, channels=channels, plan=plan, zero=x.zero,
        )  # fmt: skip

    def _product(self, x: Integers, packed: npt.NDArray[Any], form: MultiplyAdd, cols: int) -> Any:
        depth = as_int(x.q.ty.shape[-1])
        if isinstance(form, QuadsOf8Saturating) and depth is not None and depth % form.depth == 0:
            ordered = order_steps(packed)
            tensors = (relax.const(ordered.panels), relax.const(step_table(ordered.order)))
            return self.contract(ordered_matmul, x.q, *tensors, cols=cols, form=form, sizes=ordered.sizes)
        return self.contract(
            integer_matmul, x.q, relax.const(packed), cols=cols, form=form, zero=x.known_zero
        )

    def _direct(
        self, x: Integers, packed: npt.NDArray[Any], form: MultiplyAdd, channels: int, geometry: ConvGeometry
    ) -> Any:
        _, _, width, depth = (as_int(extent) for extent in x.q.ty.shape)
        options = {"geometry": geometry, "channels": channels, "form": form, "zero": x.known_zero}
        if isinstance(form, QuadsOf8Saturating) and width is not None and depth is not None:
            starts = step_offsets(geometry, width, depth, form.depth)
            if starts is not None:
                ordered = order_steps(packed)
                tensors = (relax.const(ordered.panels), relax.const(step_table(starts[ordered.order])))
                return self.contract(ordered_conv2d, x.q, *tensors, sizes=ordered.sizes, **options)
        return self.contract(integer_conv2d, x.q, relax.const(packed), **options)

    def _width(self, form: MultiplyAdd, rows: int, cols: int, groups: int = 1) -> int:
        """Columns of a panel."""
        unit = self.context.unit
        if form.depth == 4 and takes_tiles(unit, rows, groups):
            return PANEL_WIDTH
        return choose_panel_width(unit_for(form, unit), rows, cols)

    def _form(self, flat: npt.NDArray[Any], zero: npt.NDArray[Any]) -> MultiplyAdd:
        return integer_form(self.context.unit, flat.astype(np.int16) if zero.any() else flat)

    def _rows(self, extents: Any) -> int:
        rows = 1
        for extent in extents:
            rows *= self.context.expected(extent)
        return rows
