"""GPTQ: rounding column by column, where each column's error is made up for in the columns behind it.

After Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
Pre-trained Transformers" (2022, arXiv:2210.17323), algorithm 1: the weights W [rows, columns] of a product
y = W x are rounded so that the squared error of y over calibration inputs is small. Its Hessian with respect
to a row of W is H = X X^T, the same for all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assay.compile.quantize.groups import group_parameters, groups_of, round_to_codes
from assay.errors import ModelError
from assay.models.decoders.weights import BlockQuantized

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["gptq"]

# As the paper has them: a share of the mean of the diagonal is added to it, and updates of the columns behind
# are collected for a block of columns.
_DAMPING = 0.01
_BLOCK = 128


def gptq(
    values: npt.NDArray[np.float32],
    hessian: npt.NDArray[np.float64],
    *,
    bits: int,
    group: int,
    symmetric: bool,
) -> BlockQuantized:
    """``values`` [rows, columns] in groups of codes, as ``quantize_groups`` gives them.

    ``hessian`` [columns, columns] is the sum of x x^T over calibration inputs. The scale of a group is chosen
    when its first column is reached. Raises ModelError where the Hessian is not finite.
    """
    rows, columns = values.shape
    upper = _inverse_factor(hessian)
    count = groups_of(columns, group)
    codes = np.zeros((rows, count * group), np.uint8)
    scales = np.empty((rows, count), np.float32)
    zeros = None if symmetric else np.empty((rows, count), np.float32)
    left = values.astype(np.float64)
    # Columns that no calibration input uses may be anything: they keep to zero, and move no scale.
    left[:, np.diag(hessian) == 0] = 0
    step = max(_BLOCK, group)
    for start in range(0, columns, step):
        end = min(start + step, columns)
        errors = np.zeros((rows, end - start))
        for column in range(start, end):
            index = column // group
            if column % group == 0:
                _start_group(left, index, group, bits, symmetric, scales, zeros)
            zero = None if zeros is None else zeros[:, index]
            now = left[:, column].astype(np.float32)
            code = round_to_codes(now, scales[:, index], zero, bits)
            codes[:, column] = code
            middle = np.float32(2 ** (bits - 1)) if zero is None else zero
            rounded = scales[:, index] * (code.astype(np.float32) - middle)
            error = (left[:, column] - rounded) / upper[column, column]
            left[:, column:end] -= np.outer(error, upper[column, column:end])
            errors[:, column - start] = error
        left[:, end:] -= errors @ upper[start:end, end:]
    if columns < count * group:
        codes[:, columns:] = 2 ** (bits - 1) if zeros is None else zeros[:, -1:].astype(np.uint8)
    return BlockQuantized(bits=bits, block_size=group, codes=codes, scales=scales, zero_points=zeros)


def _start_group(
    left: npt.NDArray[np.float64],
    index: int,
    group: int,
    bits: int,
    symmetric: bool,
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.float32] | None,
) -> None:
    """The scale and zero point of a group from its weights as they are now."""
    part = left[:, index * group : (index + 1) * group].astype(np.float32)
    found, middles = group_parameters(part, bits=bits, symmetric=symmetric, search=True)
    scales[:, index] = found
    if zeros is not None and middles is not None:
        zeros[:, index] = middles


def _inverse_factor(hessian: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The upper Cholesky factor U of the damped inverse, inverse(H) = U^T U."""
    import scipy.linalg

    if not np.all(np.isfinite(hessian)):
        raise ModelError("The activations of the calibration inputs are not finite.")
    damped = hessian.copy()
    diagonal = np.diag(damped).copy()
    diagonal[diagonal == 0] = 1
    damped[np.diag_indices_from(damped)] = diagonal + _DAMPING * diagonal.mean()
    inverse = scipy.linalg.cho_solve(scipy.linalg.cho_factor(damped, lower=True), np.eye(len(damped)))
    factor: npt.NDArray[np.float64] = scipy.linalg.cholesky(inverse, lower=False)
    return factor
