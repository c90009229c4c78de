// What CUDA C++ has beyond C++, as far as generated kernels use it.
// Names and meanings: CUDA C++ Programming Guide, "C++ Language Extensions".
#pragma once
#define ASSAY_VECTOR3_ALIGN 1
#include <math.h>

#include "fibers.hpp"
#include "vectors.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(BYTES) alignas(BYTES)
#define threadIdx (assay::thread_index)
#define blockIdx (assay::block_index)
#define blockDim (assay::block_size)
#define gridDim (assay::grid_size)
#define CUDART_INF_F __builtin_huge_valf()
#define CUDART_INF __builtin_huge_val()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_NAN __builtin_nan("")

#define ASSAY_VECTORS(NAME, T)                                                   \
  using NAME##2 = assay::Vector<T, 2>;                                           \
  using NAME##3 = assay::Vector<T, 3>;                                           \
  using NAME##4 = assay::Vector<T, 4>;                                           \
  inline NAME##2 make_##NAME##2(T a, T b) { return {a, b}; }                     \
  inline NAME##3 make_##NAME##3(T a, T b, T c) { return {a, b, c}; }             \
  inline NAME##4 make_##NAME##4(T a, T b, T c, T d) { return {a, b, c, d}; }     \
  struct NAME##1 {                                                               \
    T x;                                                                         \
  };
ASSAY_VECTORS(char, signed char)
ASSAY_VECTORS(uchar, unsigned char)
ASSAY_VECTORS(short, short)
ASSAY_VECTORS(ushort, unsigned short)
ASSAY_VECTORS(int, int)
ASSAY_VECTORS(uint, unsigned int)
ASSAY_VECTORS(longlong, long)
ASSAY_VECTORS(ulonglong, unsigned long)
ASSAY_VECTORS(float, float)
ASSAY_VECTORS(double, double)
#undef ASSAY_VECTORS

inline void __syncthreads() { assay::wait(assay::kBarrier); }
inline void __syncwarp(unsigned = ~0u) { assay::from_lane<int>(0, 0); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __activemask() { return ~0u; }
inline unsigned __ballot_sync(unsigned, int predicate) { return assay::ballot(predicate); }
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Within groups of ``width`` lanes; a lane outside its group gives the own value.
template <class T>
T __shfl_sync(unsigned, T value, int source, int width = ASSAY_WARP_SIZE) {
  unsigned base = assay::lane() / width * width;
  return assay::from_lane(value, base + static_cast<unsigned>(source) % width);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned delta, int width = ASSAY_WARP_SIZE) {
  unsigned inside = assay::lane() % width;
  return assay::from_lane(value, inside + delta < unsigned(width) ? assay::lane() + delta : assay::lane());
}
template <class T>
T __shfl_up_sync(unsigned, T value, unsigned delta, int width = ASSAY_WARP_SIZE) {
  unsigned inside = assay::lane() % width;
  return assay::from_lane(value, inside >= delta ? assay::lane() - delta : assay::lane());
}
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask, int width = ASSAY_WARP_SIZE) {
  unsigned other = assay::lane() ^ unsigned(mask);
  return assay::from_lane(value, other / width <= assay::lane() / width ? other : assay::lane());
}

template <class T>
T __ldg(const T* address) {
  return *address;
}
template <class T>
T atomicAdd(T* address, T value) {
  T old = *address;
  *address = old + value;
  return old;
}
template <class T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
T min(T a, T b) {
  return a < b ? a : b;
}
// As on the device, a number wins over a NaN.
inline float max(float a, float b) { return fmaxf(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }

namespace assay {

template <class... A, int... I>
void call(void (*kernel)(A...), void** arguments, Sequence<int, I...>) {
  kernel(*static_cast<typename WithoutReference<A>::type*>(arguments[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, Count<sizeof...(A)>{});
}
template <auto Kernel>
void run(void** arguments) {
  call(Kernel, arguments);
}

}  // namespace assay
