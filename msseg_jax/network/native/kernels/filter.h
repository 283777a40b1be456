// The inner loop of the forward passes: a filter along W with three taps, over many maps.
#pragma once

#include <algorithm>
#include <vector>

#include "vectors.h"
#include "volumes.h"

namespace msseg {

constexpr int kMaxVecs = 6;  // maximum vectors of positions computed at once

// A run of positions of one map, and the weights (kw, kOut) for it. N is float, or uint32_t for a
// pair of bfloat16 numbers: those of two maps at the same position.
template <class N>
struct Tap {
  const N* x;
  const N* weights;
};

// Filters along W and adds up the taps, for kVecs vectors at position p: out[o * size + p].
template <class N, int kOut, int kVecs>
void filter(const std::vector<Tap<N>>& taps, int64_t p, int64_t size, float* out) {
  Vec sum[kOut][kVecs];
#pragma GCC unroll 8
  for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) sum[o][v] = Vec{};
  for (const Tap<N>& tap : taps) {
    const N* weights = tap.weights;
    for (int kw = 0; kw < 3; ++kw, weights += kOut) {
      decltype(load(tap.x)) x[kVecs];
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) x[v] = load(tap.x + p + kw + v * kLanes);
#pragma GCC unroll 8
      for (int o = 0; o < kOut; ++o) {
        const auto weight = repeat(weights[o]);
#pragma GCC unroll 8
        for (int v = 0; v < kVecs; ++v) sum[o][v] = multiply_add(sum[o][v], x[v], weight);
      }
    }
  }
#pragma GCC unroll 8
  for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) write(out + o * size + p + v * kLanes, sum[o][v]);
}

template <class N, int kOut>
void filter_run(const std::vector<Tap<N>>& taps, int64_t vectors, int64_t size, float* out) {
  constexpr int kVecs = std::max(1, std::min(kMaxVecs, kAccumulators / kOut));
  int64_t v = 0;
  for (; v + kVecs <= vectors; v += kVecs) filter<N, kOut, kVecs>(taps, v * kLanes, size, out);
  for (; v + 2 <= vectors; v += 2) filter<N, kOut, 2>(taps, v * kLanes, size, out);
  for (; v < vectors; ++v) filter<N, kOut, 1>(taps, v * kLanes, size, out);
}

// kFilterRun<N>[count] filters a run for `count` output channels.
template <class N>
using FilterRun = decltype(&filter_run<N, 1>);
template <class N>
constexpr FilterRun<N> kFilterRun[kMaxOut + 1] = {
    nullptr,          filter_run<N, 1>, filter_run<N, 2>, filter_run<N, 3>, filter_run<N, 4>,
    filter_run<N, 5>, filter_run<N, 6>, filter_run<N, 7>, filter_run<N, 8>};

}  // namespace msseg
