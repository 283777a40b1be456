// Vectors of floats in the widest registers of this CPU, and arrays of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace msseg {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kAccumulators = 24;  // accumulators use 24 of 32 registers
#elif defined(__AVX__)
constexpr int kLanes = 8, kAccumulators = 12;  // accumulators use 12 of 16 registers
#else  // NEON, SSE
constexpr int kLanes = 4, kAccumulators = sizeof(void*) == 8 ? 16 : 8;
#endif

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(4)));
typedef uint32_t Bits __attribute__((vector_size(kLanes * 4)));
typedef uint16_t HalfBits __attribute__((vector_size(kLanes * 2)));

// A bfloat16 number: the upper half of a float.
struct BFloat16 {
  uint16_t bits;
};

// read<V>(p) reads a float or a vector of floats, V, from floats or from bfloat16 numbers.
template <class V>
inline V read(const float* p);
template <>
inline float read<float>(const float* p) {
  return *p;
}
template <>
inline Vec read<Vec>(const float* p) {
  return *reinterpret_cast<const LooseVec*>(p);
}

template <class V>
inline V read(const BFloat16* p);
template <>
inline float read<float>(const BFloat16* p) {
  const uint32_t bits = uint32_t{p->bits} << 16;
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
template <>
inline Vec read<Vec>(const BFloat16* p) {
  HalfBits half;
  std::memcpy(&half, p, sizeof(half));
  const Bits bits = __builtin_convertvector(half, Bits) << 16;
  Vec x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

inline void write(float* p, float x) { *p = x; }
inline void write(float* p, Vec x) { *reinterpret_cast<LooseVec*>(p) = x; }

// Rounding to bfloat16: to the nearest number, and to the even one of two that are equally near.
// The comparison keeps NaN: adding to its bits could make it infinite.
inline void write(BFloat16* p, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  bits = x != x ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1);
  p->bits = static_cast<uint16_t>(bits >> 16);
}
inline void write(BFloat16* p, Vec x) {
  Bits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const Bits rounded = bits + 0x7fff + (bits >> 16 & 1);
  const auto is_nan = x != x;  // all bits of a lane are set where it is NaN
  Bits nan;
  std::memcpy(&nan, &is_nan, sizeof(nan));
  bits = (nan & (bits | 0x400000)) | (~nan & rounded);
  const HalfBits half = __builtin_convertvector(bits >> 16, HalfBits);
  std::memcpy(p, &half, sizeof(half));
}

// The products of a pass. multiply_add(sum, x, y) adds products of neighbouring numbers to the
// lanes of `sum`: one per lane for floats, and two per lane for bfloat16 numbers. CPUs with
// instructions for the latter (AVX512-BF16) need half as many. All sums are floats.
inline Vec multiply_add(Vec sum, Vec x, Vec y) { return sum + x * y; }
#if defined(__AVX512BF16__)
constexpr bool kMultipliesBFloat16 = true;
inline Vec multiply_add(Vec sum, Bits x, Bits y) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
#else
constexpr bool kMultipliesBFloat16 = false;
inline Vec multiply_add(Vec sum, Bits, Bits) { return sum; }  // is not called
#endif

// The vectors of a number type: floats, BFloat16, or pairs of bfloat16 numbers, uint32_t.
inline Vec load(const float* p) { return read<Vec>(p); }
inline Bits load(const void* p) {
  Bits x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
inline Vec repeat(float x) { return Vec{} + x; }
inline Bits repeat(uint32_t x) { return Bits{} + x; }

// Calls f(V{}, w) for vectors that cover the columns 0 ... width - 1, with V = Vec. The last two
// vectors overlap if necessary, so f must not add to what it writes. A row that is shorter than a
// vector is covered by single floats, with V = float.
template <class F>
inline void along_row(int64_t width, F f) {
  if (width < kLanes) {
    for (int64_t w = 0; w < width; ++w) f(float{}, w);
    return;
  }
  for (int64_t w = 0; w + kLanes < width; w += kLanes) f(Vec{}, w);
  f(Vec{}, width - kLanes);
}

inline float sum_of_lanes(Vec x) {
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += x[lane];
  return total;
}

// Numbers for intermediate results, at the beginning of a cache line. They are not set.
template <class N>
class Scratch {
 public:
  explicit Scratch(int64_t count)
      : bytes_(count * sizeof(N)), data_(static_cast<N*>(::operator new[](bytes_, kLine))) {}
  N* data() { return data_.get(); }
  void clear() { std::memset(static_cast<void*>(data_.get()), 0, bytes_); }

 private:
  static constexpr std::align_val_t kLine{64};
  struct Free {
    void operator()(N* p) const { ::operator delete[](p, kLine); }
  };
  int64_t bytes_;
  std::unique_ptr<N[], Free> data_;
};

// Scratch memory that starts as zeros.
template <class N>
class Zeros : public Scratch<N> {
 public:
  explicit Zeros(int64_t count) : Scratch<N>(count) { this->clear(); }
};

}  // namespace msseg
