"""Functions of CUDA C++ that multiply small matrices in the registers of a warp, for kernels to call.

Instructions and layouts: NVIDIA, "PTX ISA", mma.m16n8k16 and mma.m16n8k8. Where the source is compiled for
the CPU, a header of `emulation/gpu/include` has the same functions, and those of other makers' instructions.
"""

from __future__ import annotations

__all__ = ["with_matrix_functions"]

_PREFIX = "assay_"
_KERNEL = 'extern "C" __global__'
_FUNCTIONS = """#ifdef __CUDACC__
__device__ __forceinline__ unsigned assay_pair(const half2* pair) {
  return *reinterpret_cast<const unsigned*>(pair);
}
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void assay_mma_m16n8k16(float* sums, const half2* left, const half2* right) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(assay_pair(left)), "r"(assay_pair(left + 1)), "r"(assay_pair(left + 2)),
        "r"(assay_pair(left + 3)), "r"(assay_pair(right)), "r"(assay_pair(right + 1)));
}
#endif
__device__ __forceinline__ void assay_mma_m16n8k8(float* sums, const half2* left, const half2* right) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(assay_pair(left)), "r"(assay_pair(left + 1)), "r"(assay_pair(right)));
}
#else
#include "matrix_units.hpp"
#endif
"""


def with_matrix_functions(source: str) -> str:
    """``source``, with the functions before its first kernel where it calls one of them."""
    start = source.find(_KERNEL)
    if start < 0 or _PREFIX not in source:
        return source
    return source[:start] + _FUNCTIONS + source[start:]
