// Vectors of 2, 3 and 4 elements as CUDA and Metal have them: named members, arithmetic element by element.
#pragma once

namespace assay {

template <class T, int N>
struct Vector;

template <class T>
struct alignas(2 * sizeof(T)) Vector<T, 2> {
  T x, y;
  Vector() = default;
  Vector(T a) : x(a), y(a) {}
  Vector(T a, T b) : x(a), y(b) {}
  template <class U>
  explicit Vector(const Vector<U, 2>& v) : x(T(v.x)), y(T(v.y)) {}
  T& operator[](int i) { return (&x)[i]; }
  T operator[](int i) const { return (&x)[i]; }
};

// Three elements take the room of four in Metal, of three in CUDA.
template <class T>
struct alignas(ASSAY_VECTOR3_ALIGN * sizeof(T)) Vector<T, 3> {
  T x, y, z;
  Vector() = default;
  Vector(T a) : x(a), y(a), z(a) {}
  Vector(T a, T b, T c) : x(a), y(b), z(c) {}
  template <class U>
  explicit Vector(const Vector<U, 3>& v) : x(T(v.x)), y(T(v.y)), z(T(v.z)) {}
  T& operator[](int i) { return (&x)[i]; }
  T operator[](int i) const { return (&x)[i]; }
};

template <class T>
struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) Vector<T, 4> {
  T x, y, z, w;
  Vector() = default;
  Vector(T a) : x(a), y(a), z(a), w(a) {}
  Vector(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}
  Vector(Vector<T, 2> a, Vector<T, 2> b) : x(a.x), y(a.y), z(b.x), w(b.y) {}
  template <class U>
  explicit Vector(const Vector<U, 4>& v) : x(T(v.x)), y(T(v.y)), z(T(v.z)), w(T(v.w)) {}
  T& operator[](int i) { return (&x)[i]; }
  T operator[](int i) const { return (&x)[i]; }
};

#define ASSAY_BINARY(OP)                                               \
  template <class T, int N>                                            \
  Vector<T, N> operator OP(Vector<T, N> a, Vector<T, N> b) {           \
    Vector<T, N> result;                                               \
    for (int i = 0; i < N; i++) result[i] = a[i] OP b[i];              \
    return result;                                                     \
  }                                                                    \
  template <class T, int N>                                            \
  Vector<T, N> operator OP(Vector<T, N> a, typename Type<T>::type b) { \
    return a OP Vector<T, N>(b);                                       \
  }                                                                    \
  template <class T, int N>                                            \
  Vector<T, N> operator OP(typename Type<T>::type a, Vector<T, N> b) { \
    return Vector<T, N>(a) OP b;                                       \
  }
ASSAY_BINARY(+)
ASSAY_BINARY(-)
ASSAY_BINARY(*)
ASSAY_BINARY(/)
ASSAY_BINARY(%)
ASSAY_BINARY(&)
ASSAY_BINARY(|)
ASSAY_BINARY(^)
ASSAY_BINARY(<<)
ASSAY_BINARY(>>)
#undef ASSAY_BINARY

}  // namespace assay
