"""wasm32-relaxed-simd: wasm32-simd with fused multiply-add, for engines of 2023 and later."""

from __future__ import annotations

from dataclasses import replace

from assay.compile.targets.wasm32_simd import TARGET as WASM32_SIMD

__all__ = ["TARGET"]

# https://github.com/WebAssembly/relaxed-simd: Chrome 114, Firefox 145, Node.js 21, wasmtime 15. Whether
# f32x4.relaxed_madd rounds once or twice is up to the engine; on a CPU with a fused multiply-add, once.
TARGET = replace(
    WASM32_SIMD,
    name="wasm32-relaxed-simd",
    description="WebAssembly with relaxed SIMD",
    features=(*WASM32_SIMD.features, "relaxed-simd"),
    vector_unit=replace(WASM32_SIMD.vector_unit, fma=True),
    attributes=(*WASM32_SIMD.attributes, "+relaxed-simd"),
    aliases=("wasm-relaxed",),
)
