// float16 as generated kernels use it, on the compiler's own _Float16.
#pragma once
using half = _Float16;
using __half = _Float16;
using half2 = assay::Vector<_Float16, 2>;
using __half2 = half2;
inline half __float2half(float x) { return static_cast<half>(x); }
inline half __float2half_rn(float x) { return static_cast<half>(x); }
inline float __half2float(half x) { return static_cast<float>(x); }
inline half2 make_half2(half a, half b) { return {a, b}; }
inline half2 __halves2half2(half a, half b) { return {a, b}; }
inline bool __hgt(half a, half b) { return a > b; }
inline bool __hlt(half a, half b) { return a < b; }
inline half __hmax(half a, half b) { return a > b ? a : b; }
inline half __hmin(half a, half b) { return a < b ? a : b; }
inline half __habs(half a) { return a < 0 ? -a : a; }
inline half __hfma(half a, half b, half c) { return half(float(a) * float(b) + float(c)); }
#define ASSAY_HALF(NAME, F) \
  inline half NAME(half x) { return static_cast<half>(F(static_cast<float>(x))); }
ASSAY_HALF(hexp, expf)
ASSAY_HALF(hexp2, exp2f)
ASSAY_HALF(hlog, logf)
ASSAY_HALF(hlog2, log2f)
ASSAY_HALF(hsqrt, sqrtf)
ASSAY_HALF(hrsqrt, rsqrtf)
ASSAY_HALF(hcos, cosf)
ASSAY_HALF(hsin, sinf)
ASSAY_HALF(hfloor, floorf)
ASSAY_HALF(hceil, ceilf)
ASSAY_HALF(htanh, tanhf)
#undef ASSAY_HALF
