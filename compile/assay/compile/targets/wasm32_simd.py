"""wasm32-simd: WebAssembly with 128-bit SIMD and bulk memory, for browsers, Node.js and wasmtime."""

from __future__ import annotations

from assay.compile.targets.target import DotProduct, Launcher, Target, VectorUnit

__all__ = ["TARGET"]

# https://webassembly.github.io/spec/core (2.0): fixed-width SIMD and bulk memory. An engine keeps values in
# the registers of the CPU below it; 16 are what x86-64 has, and multiply and add are two instructions.
TARGET = Target(
    name="wasm32-simd",
    description="WebAssembly with 128-bit SIMD",
    triple="wasm32-unknown-unknown-wasm",
    cpu="generic",
    features=("simd128", "bulk-memory"),
    vector_unit=VectorUnit(bits=128, registers=16, fma=False, f16c=False, dot=DotProduct.PAIRS),
    attributes=("+simd128", "+bulk-memory"),
    launcher=Launcher.WASM,
    aliases=("wasm", "wasm32", "webassembly"),
)
