// The inner loop of the gradients with respect to a kernel: products summed over many positions.
#pragma once

#include "vectors.h"
#include "volumes.h"

namespace msseg {

// Adds the products of x and dy over a run of positions, for kOut output channels and kTaps
// neighbouring taps: sums[t * kOut + o] += x[p + t] * dy[o * size + p], in each lane. N is float or
// BFloat16.
template <class N, int kOut, int kTaps>
void add_products(const N* x, const N* dy, int64_t size, int64_t positions, Vec* sums) {
  Vec sum[kTaps][kOut];
#pragma GCC unroll 8
  for (int t = 0; t < kTaps; ++t)
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) sum[t][o] = sums[t * kOut + o];
  for (int64_t p = 0; p < positions; p += static_cast<int64_t>(sizeof(Vec) / sizeof(N))) {
    decltype(load(x)) xs[kTaps];
#pragma GCC unroll 8
    for (int t = 0; t < kTaps; ++t) xs[t] = load(x + p + t);
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) {
      const auto y = load(dy + o * size + p);
#pragma GCC unroll 8
      for (int t = 0; t < kTaps; ++t) sum[t][o] = multiply_add(sum[t][o], xs[t], y);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTaps; ++t)
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) sums[t * kOut + o] = sum[t][o];
}

// Does the same for all three taps, at once if the accumulators suffice.
template <class N, int kOut>
void add_taps(const N* x, const N* dy, int64_t size, int64_t positions, Vec* sums) {
  if constexpr (3 * kOut <= kAccumulators)
    add_products<N, kOut, 3>(x, dy, size, positions, sums);
  else
    for (int t = 0; t < 3; ++t)
      add_products<N, kOut, 1>(x + t, dy, size, positions, sums + t * kOut);
}

// kAddTaps<N>[count] does it for `count` output channels.
template <class N>
using AddTaps = decltype(&add_taps<N, 1>);
template <class N>
constexpr AddTaps<N> kAddTaps[kMaxOut + 1] = {
    nullptr,        add_taps<N, 1>, add_taps<N, 2>, add_taps<N, 3>, add_taps<N, 4>,
    add_taps<N, 5>, add_taps<N, 6>, add_taps<N, 7>, add_taps<N, 8>};

}  // namespace msseg
