// Metal's SIMD-group matrices: 64 elements that the 32 threads of a SIMD-group hold together, two each.
//
// Names and meanings: Metal Shading Language Specification, "SIMD-group Matrix Data Types" and "SIMD-group Matrix
// Functions". It leaves open which thread holds which element, so that nothing here tells. A thread reads and writes
// only its own elements in memory, without waiting for others: a missing barrier shows. What Metal leaves undefined
// is NaN: products for which not all threads come, or whose matrices they loaded from different places.
#pragma once

namespace assay {

constexpr unsigned kMatrixSize = 8, kMatrixElements = 2;

// What a thread gives to a product: its elements of both matrices, and where these are from.
struct Factors {
  float left[kMatrixElements], right[kMatrixElements];
  uint64_t sources;
};
// By turns, so that a thread may come to the next product while others still read this one.
ASSAY_STATE Factors factors[2][kMaximumThreads];
ASSAY_STATE unsigned products[kMaximumThreads];

// The place, row by row, of an element of this thread.
inline unsigned matrix_place(unsigned element) { return lane() + element * ASSAY_WARP_SIZE; }

// The factors of all threads of this one's SIMD-group; null where the next one does not give some of the same matrices.
inline const Factors* exchanged(const Factors& own) {
  unsigned turn = products[current]++ % 2;
  factors[turn][current] = own;
  from_lane(turn, 0);
  const Warp& warp = warps[current / ASSAY_WARP_SIZE];
  const Factors* all = factors[turn] + (current - lane());
  unsigned next = (lane() + 1) % ASSAY_WARP_SIZE;
  bool same = warp.present[next] && warp.values[next] == turn && all[next].sources == own.sources;
  return same ? all : nullptr;
}

template <class T>
T poison() {
  T value;
  memcpy(&value, &kPoison, sizeof(T));
  return value;
}

}  // namespace assay

namespace metal {

template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == assay::kMatrixSize && Rows == assay::kMatrixSize, "Metal has matrices of 8 x 8");
  static_assert(ASSAY_WARP_SIZE == 32, "a SIMD-group has 32 threads");
  T assay_elements[assay::kMatrixElements];
  uint64_t assay_source;
};
using simdgroup_float8x8 = simdgroup_matrix<float, 8, 8>;
using simdgroup_half8x8 = simdgroup_matrix<half, 8, 8>;

template <class T, int C, int R>
simdgroup_matrix<T, C, R> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, C, R> result;
  for (T& each : result.assay_elements) each = value;
  result.assay_source = 0;
  return result;
}

// ``stride``: elements from the first of one row to that of the next, or of one column where it is transposed.
inline ulong matrix_offset(unsigned place, ulong stride, ulong2 origin, bool transpose) {
  ulong row = origin.y + place / assay::kMatrixSize, column = origin.x + place % assay::kMatrixSize;
  return transpose ? column * stride + row : row * stride + column;
}
template <class T, int C, int R>
void simdgroup_load(simdgroup_matrix<T, C, R>& matrix, const T* source, ulong stride = C, ulong2 origin = {0, 0},
                    bool transpose = false) {
  for (unsigned i = 0; i < assay::kMatrixElements; i++)
    matrix.assay_elements[i] = source[matrix_offset(assay::matrix_place(i), stride, origin, transpose)];
  // Addresses have 48 bits.
  ulong first = reinterpret_cast<ulong>(source + matrix_offset(0, stride, origin, transpose));
  matrix.assay_source = first * 2 + transpose + (stride << 49);
}
template <class T, int C, int R>
void simdgroup_store(const simdgroup_matrix<T, C, R>& matrix, T* target, ulong stride = C, ulong2 origin = {0, 0},
                     bool transpose = false) {
  for (unsigned i = 0; i < assay::kMatrixElements; i++)
    target[matrix_offset(assay::matrix_place(i), stride, origin, transpose)] = matrix.assay_elements[i];
}

template <class T, class A, class B, int N, int K, int M>
void simdgroup_multiply_accumulate(simdgroup_matrix<T, N, M>& result, const simdgroup_matrix<A, K, M>& a,
                                   const simdgroup_matrix<B, N, K>& b, const simdgroup_matrix<T, N, M>& sum) {
  using assay::kMatrixElements, assay::kMatrixSize;
  assay::Factors own;
  for (unsigned i = 0; i < kMatrixElements; i++) {
    own.left[i] = float(a.assay_elements[i]);
    own.right[i] = float(b.assay_elements[i]);
  }
  own.sources = a.assay_source * 3 + b.assay_source;
  const assay::Factors* all = assay::exchanged(own);
  result.assay_source = sum.assay_source;
  for (unsigned i = 0; i < kMatrixElements; i++) {
    unsigned row = assay::matrix_place(i) / kMatrixSize, column = assay::matrix_place(i) % kMatrixSize;
    T total = all ? sum.assay_elements[i] : assay::poison<T>();
    for (unsigned k = 0; all && k < kMatrixSize; k++) {
      unsigned left = row * kMatrixSize + k, right = k * kMatrixSize + column;
      total += T(all[left % ASSAY_WARP_SIZE].left[left / ASSAY_WARP_SIZE]) *
               T(all[right % ASSAY_WARP_SIZE].right[right / ASSAY_WARP_SIZE]);
    }
    result.assay_elements[i] = total;
  }
}

}  // namespace metal
