// Instructions that multiply small matrices in the registers of a warp: sums += left * right, of float16 added up
// in float32. Every lane gives its registers; each computes the sums that it holds. Where the elements lie: PTX ISA,
// mma.m16n8k16 and mma.m16n8k8; CDNA 3 ISA, MFMA 16x16x16; RDNA 3 and RDNA 4 ISA, WMMA 16x16x16.
#pragma once

namespace assay {

struct Place {
  int line, step;
};

// PTX: lane / 4 and lane % 4 say where the pairs of a lane begin.
template <int Steps>
struct Mma {
  static constexpr int kLanes = 32, kRows = 16, kColumns = 8, kSteps = Steps, kSums = 4;
  static constexpr int kLeft = Steps / 2, kRight = Steps / 4;
  static Place left(int lane, int i) {
    return {lane / 4 + (i / 2 % 2 ? 8 : 0), lane % 4 * 2 + i % 2 + (i / 4 ? 8 : 0)};
  }
  static Place right(int lane, int i) { return {lane / 4, lane % 4 * 2 + i % 2 + (i / 2 ? 8 : 0)}; }
  static Place sum(int lane, int i) { return {lane / 4 + (i / 2 ? 8 : 0), lane % 4 * 2 + i % 2}; }
};

struct Mfma {
  static constexpr int kLanes = 64, kRows = 16, kColumns = 16, kSteps = 16, kSums = 4, kLeft = 4, kRight = 4;
  static Place left(int lane, int i) { return {lane % 16, lane / 16 * 4 + i}; }
  static Place right(int lane, int i) { return left(lane, i); }
  static Place sum(int lane, int i) { return {lane / 16 * 4 + i, lane % 16}; }
};

// RDNA 3: both halves of the wave hold the operands; their sums are in rows by turns.
struct Wmma11 {
  static constexpr int kLanes = 32, kRows = 16, kColumns = 16, kSteps = 16, kSums = 8, kLeft = 16, kRight = 16;
  static Place left(int lane, int i) { return {lane % 16, i}; }
  static Place right(int lane, int i) { return left(lane, i); }
  static Place sum(int lane, int i) { return {2 * i + lane / 16, lane % 16}; }
};

struct Wmma12 {
  static constexpr int kLanes = 32, kRows = 16, kColumns = 16, kSteps = 16, kSums = 8, kLeft = 8, kRight = 8;
  static Place left(int lane, int i) { return {lane % 16, lane / 16 * 8 + i}; }
  static Place right(int lane, int i) { return left(lane, i); }
  static Place sum(int lane, int i) { return {lane / 16 * 8 + i, lane % 16}; }
};

ASSAY_STATE float left_registers[kMaximumThreads][16], right_registers[kMaximumThreads][16];

template <class Unit>
void multiply(float* sums, const half2* left, const half2* right) {
  static_assert(Unit::kLanes == ASSAY_WARP_SIZE, "the instruction is of warps of another size");
  for (int i = 0; i < Unit::kLeft; i++) left_registers[current][i] = i % 2 ? left[i / 2].y : left[i / 2].x;
  for (int i = 0; i < Unit::kRight; i++) right_registers[current][i] = i % 2 ? right[i / 2].y : right[i / 2].x;
  from_lane<int>(0, 0);
  float a[Unit::kRows][Unit::kSteps], b[Unit::kColumns][Unit::kSteps];
  memset(a, 0x7f, sizeof(a));
  memset(b, 0x7f, sizeof(b));
  unsigned first = current / ASSAY_WARP_SIZE * ASSAY_WARP_SIZE;
  for (int lane = 0; lane < Unit::kLanes; lane++) {
    for (int i = 0; i < Unit::kLeft; i++) {
      Place at = Unit::left(lane, i);
      a[at.line][at.step] = left_registers[first + lane][i];
    }
    for (int i = 0; i < Unit::kRight; i++) {
      Place at = Unit::right(lane, i);
      b[at.line][at.step] = right_registers[first + lane][i];
    }
  }
  for (int i = 0; i < Unit::kSums; i++) {
    Place at = Unit::sum(current % ASSAY_WARP_SIZE, i);
    for (int k = 0; k < Unit::kSteps; k++) sums[i] += a[at.line][k] * b[at.step][k];
  }
  from_lane<int>(0, 0);
}

}  // namespace assay

#define ASSAY_MATRIX_UNIT(NAME, UNIT)                                          \
  inline void NAME(float* sums, const half2* left, const half2* right) {       \
    assay::multiply<UNIT>(sums, left, right);                                  \
  }
#if ASSAY_WARP_SIZE == 64
ASSAY_MATRIX_UNIT(assay_mfma_16x16x16, assay::Mfma)
#else
ASSAY_MATRIX_UNIT(assay_mma_m16n8k16, assay::Mma<16>)
ASSAY_MATRIX_UNIT(assay_mma_m16n8k8, assay::Mma<8>)
ASSAY_MATRIX_UNIT(assay_wmma_gfx11, assay::Wmma11)
ASSAY_MATRIX_UNIT(assay_wmma_gfx12, assay::Wmma12)
#endif
#undef ASSAY_MATRIX_UNIT
