// What the Metal Shading Language has beyond C++, as far as generated kernels use it. No function of the C library
// is in scope, so that one that Metal lacks does not compile.
// Names and meanings: Metal Shading Language Specification.
#pragma once
#define ASSAY_VECTOR3_ALIGN 4
#include "fibers.hpp"
#include "vectors.hpp"

using uint = unsigned int;
using uchar = unsigned char;
using ushort = unsigned short;
using ulong = unsigned long;
using half = _Float16;

#define kernel extern "C"
#define device
#define thread
#define threadgroup
#define constant const

#define ASSAY_VECTORS(NAME, T)         \
  using NAME##2 = assay::Vector<T, 2>; \
  using NAME##3 = assay::Vector<T, 3>; \
  using NAME##4 = assay::Vector<T, 4>;
ASSAY_VECTORS(char, signed char)
ASSAY_VECTORS(uchar, unsigned char)
ASSAY_VECTORS(short, short)
ASSAY_VECTORS(ushort, unsigned short)
ASSAY_VECTORS(int, int)
ASSAY_VECTORS(uint, unsigned int)
ASSAY_VECTORS(long, long)
ASSAY_VECTORS(ulong, unsigned long)
ASSAY_VECTORS(float, float)
ASSAY_VECTORS(half, _Float16)
ASSAY_VECTORS(bool, bool)
#undef ASSAY_VECTORS

namespace metal {

enum class mem_flags { mem_none, mem_device, mem_threadgroup, mem_texture };
inline void threadgroup_barrier(mem_flags) { assay::wait(assay::kBarrier); }
inline void simdgroup_barrier(mem_flags) { assay::from_lane<int>(0, 0); }

template <class T>
T simd_shuffle(T value, ushort lane) {
  return assay::from_lane(value, lane);
}
// Lanes beyond the SIMD-group give what Metal leaves undefined.
template <class T>
T simd_shuffle_down(T value, ushort delta) {
  return assay::from_lane(value, assay::lane() + delta);
}
template <class T>
T simd_shuffle_up(T value, ushort delta) {
  return assay::from_lane(value, assay::lane() - delta);
}
template <class T>
T simd_shuffle_xor(T value, ushort mask) {
  return assay::from_lane(value, assay::lane() ^ mask);
}
template <class T>
T simd_broadcast(T value, ushort lane) {
  return assay::from_lane(value, lane);
}
template <class T, class F>
T simd_reduce(T value, F combine) {
  T result = assay::from_lane(value, assay::lane());
  const assay::Warp& warp = assay::warps[assay::linear_thread() / ASSAY_WARP_SIZE];
  bool first = true;
  for (unsigned lane = 0; lane < ASSAY_WARP_SIZE; lane++) {
    if (!warp.present[lane]) continue;
    T other;
    memcpy(&other, &warp.values[lane], sizeof(T));
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}
template <class T>
T simd_sum(T value) {
  return simd_reduce(value, [](T a, T b) { return T(a + b); });
}
template <class T>
T simd_max(T value) {
  return simd_reduce(value, [](T a, T b) { return a > b ? a : b; });
}
template <class T>
T simd_min(T value) {
  return simd_reduce(value, [](T a, T b) { return a < b ? a : b; });
}

template <class T>
T max(T a, T b) {
  return a > b ? a : b;
}
template <class T>
T min(T a, T b) {
  return a < b ? a : b;
}
inline float max(float a, float b) { return __builtin_fmaxf(a, b); }
inline float min(float a, float b) { return __builtin_fminf(a, b); }
template <class T, int N>
assay::Vector<T, N> max(assay::Vector<T, N> a, assay::Vector<T, N> b) {
  for (int i = 0; i < N; i++) a[i] = max(a[i], b[i]);
  return a;
}
template <class T, int N>
assay::Vector<T, N> min(assay::Vector<T, N> a, assay::Vector<T, N> b) {
  for (int i = 0; i < N; i++) a[i] = min(a[i], b[i]);
  return a;
}
template <class T>
T clamp(T x, T low, T high) {
  return min(max(x, low), high);
}
template <class T>
T select(T a, T b, bool condition) {
  return condition ? b : a;
}
template <class T>
T abs(T x) {
  return x < T(0) ? T(-x) : x;
}
inline float fabs(float x) { return __builtin_fabsf(x); }
inline float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float pow(float a, float b) { return __builtin_powf(a, b); }
inline float powr(float a, float b) { return __builtin_powf(a, b); }
inline float fmod(float a, float b) { return __builtin_fmodf(a, b); }
inline float atan2(float a, float b) { return __builtin_atan2f(a, b); }
inline float fmax(float a, float b) { return __builtin_fmaxf(a, b); }
inline float fmin(float a, float b) { return __builtin_fminf(a, b); }
inline bool isnan(float x) { return __builtin_isnan(x); }
inline bool isinf(float x) { return __builtin_isinf(x); }
inline bool isfinite(float x) { return __builtin_isfinite(x); }
template <class T>
int popcount(T x) {
  return __builtin_popcountll(x);
}
template <class T>
int clz(T x) {
  return x ? __builtin_clzll(x) - (64 - 8 * int(sizeof(T))) : 8 * int(sizeof(T));
}

#define ASSAY_UNARY(NAME, F)                       \
  inline float NAME(float x) { return F(x); }      \
  inline half NAME(half x) { return half(F(float(x))); }
#define ASSAY_FUNCTIONS                     \
  ASSAY_UNARY(exp, __builtin_expf)          \
  ASSAY_UNARY(exp2, __builtin_exp2f)        \
  ASSAY_UNARY(exp10, __builtin_exp10f)      \
  ASSAY_UNARY(log, __builtin_logf)          \
  ASSAY_UNARY(log2, __builtin_log2f)        \
  ASSAY_UNARY(log10, __builtin_log10f)      \
  ASSAY_UNARY(sqrt, __builtin_sqrtf)        \
  ASSAY_UNARY(rsqrt, 1.0f / __builtin_sqrtf) \
  ASSAY_UNARY(sin, __builtin_sinf)          \
  ASSAY_UNARY(cos, __builtin_cosf)          \
  ASSAY_UNARY(tan, __builtin_tanf)          \
  ASSAY_UNARY(tanh, __builtin_tanhf)        \
  ASSAY_UNARY(sinh, __builtin_sinhf)        \
  ASSAY_UNARY(cosh, __builtin_coshf)        \
  ASSAY_UNARY(asin, __builtin_asinf)        \
  ASSAY_UNARY(acos, __builtin_acosf)        \
  ASSAY_UNARY(atan, __builtin_atanf)        \
  ASSAY_UNARY(floor, __builtin_floorf)      \
  ASSAY_UNARY(ceil, __builtin_ceilf)        \
  ASSAY_UNARY(trunc, __builtin_truncf)      \
  ASSAY_UNARY(rint, __builtin_rintf)        \
  ASSAY_UNARY(round, __builtin_roundf)
ASSAY_FUNCTIONS
namespace precise {
ASSAY_FUNCTIONS
}
namespace fast {
ASSAY_FUNCTIONS
}

}  // namespace metal
#include "simdgroup_matrix.hpp"

template <class T, class U>
T as_type(U value) {
  static_assert(sizeof(T) == sizeof(U), "as_type keeps the size");
  T result;
  memcpy(&result, &value, sizeof(T));
  return result;
}

namespace assay {

inline void position(uint& target, Index index) { target = index.x; }
inline void position(uint2& target, Index index) { target = uint2(index.x, index.y); }
inline void position(uint3& target, Index index) { target = uint3(index.x, index.y, index.z); }

// One parameter of a kernel: a buffer, the structure of scalars, or a position. Positions are by value: the first
// is that of the threadgroup in the grid, the second that of the thread in the threadgroup.
template <class T>
struct Parameter {
  static constexpr bool is_position = true;
  static T get(void**, int, int position_number) {
    T result;
    position(result, position_number == 0 ? block_index : thread_index);
    return result;
  }
};
template <class T>
struct Parameter<T*> {
  static constexpr bool is_position = false;
  static T* get(void** arguments, int number, int) { return *static_cast<T**>(arguments[number]); }
};
template <class T>
struct Parameter<T&> {
  static constexpr bool is_position = false;
  static T& get(void** arguments, int number, int) { return *static_cast<T*>(arguments[number]); }
};

template <class... A>
constexpr int positions_before(int index) {
  constexpr bool is_position[] = {Parameter<A>::is_position..., false};
  int count = 0;
  for (int i = 0; i < index; i++) count += is_position[i];
  return count;
}
template <class... A, int... I>
void call(void (*function)(A...), void** arguments, Sequence<int, I...>) {
  function(Parameter<A>::get(arguments, I - positions_before<A...>(I), positions_before<A...>(I))...);
}
template <class... A>
void call(void (*function)(A...), void** arguments) {
  call(function, arguments, Count<sizeof...(A)>{});
}
template <auto Kernel>
void run(void** arguments) {
  call(Kernel, arguments);
}

}  // namespace assay
