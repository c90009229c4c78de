"""ONNX operators that we translate ourselves, where TVM's translation is wrong, slow, or hides what it does.

One operator, one function, one line in ``CONVERTERS``. A converter takes the block builder, the operator's
inputs, its attributes and the opset, and returns an expression, or None to leave the case to TVM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from assay.compile.converters.cast import convert_cast
from assay.compile.converters.clip import convert_clip
from assay.compile.converters.conv_transpose import convert_conv_transpose
from assay.compile.converters.cumsum import convert_cumsum
from assay.compile.converters.dequantize_linear import convert_dequantize_linear
from assay.compile.converters.dynamic_quantize_linear import convert_dynamic_quantize_linear
from assay.compile.converters.expand import convert_expand
from assay.compile.converters.gather import convert_gather
from assay.compile.converters.gather_block_quantized import convert_gather_block_quantized
from assay.compile.converters.lrn import convert_lrn
from assay.compile.converters.matmul_nbits import convert_matmul_nbits
from assay.compile.converters.pad import convert_pad
from assay.compile.converters.paged_attention import (
    convert_drop_batch,
    convert_paged_attention,
    convert_take_rows,
)
from assay.compile.converters.quantize_linear import convert_quantize_linear
from assay.compile.converters.recurrent import convert_gru, convert_lstm, convert_rnn
from assay.compile.converters.resize import convert_resize, convert_upsample
from assay.compile.converters.top_k import convert_top_k

__all__ = ["CONVERTERS", "Converter"]

Converter: TypeAlias = Callable[[Any, Any, Mapping[str, Any], int], Any]

CONVERTERS: Mapping[str, Converter] = {
    "Cast": convert_cast,
    "Clip": convert_clip,
    "ConvTranspose": convert_conv_transpose,
    "CumSum": convert_cumsum,
    "DequantizeLinear": convert_dequantize_linear,
    "DropBatch": convert_drop_batch,
    "DynamicQuantizeLinear": convert_dynamic_quantize_linear,
    "Expand": convert_expand,
    "GRU": convert_gru,
    "Gather": convert_gather,
    "GatherBlockQuantized": convert_gather_block_quantized,
    "LRN": convert_lrn,
    "LSTM": convert_lstm,
    "MatMulNBits": convert_matmul_nbits,
    "Pad": convert_pad,
    "PagedAttention": convert_paged_attention,
    "QuantizeLinear": convert_quantize_linear,
    "RNN": convert_rnn,
    "Resize": convert_resize,
    "TakeRows": convert_take_rows,
    "TopK": convert_top_k,
    "Upsample": convert_upsample,
}
