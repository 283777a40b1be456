// Convolutions with a kernel of 1 x 1 x 1: each output map is a weighted sum of the input maps.
#pragma once

#include <vector>

#include "vectors.h"
#include "volumes.h"

namespace msseg {

constexpr int64_t kRun = 4096;  // voxels in one task; float32 sums over so few stay accurate

// Mixes voxels begin ... end - 1 of all inputs into the kOut outputs of a block. `weights` is the
// whole kernel, (Cin, Cout).
template <class T, int kOut>
void mix(const std::vector<Map<const T>>& inputs, const std::vector<Map<T>>& outputs,
         int64_t first, const float* weights, const float* bias, bool relu, int64_t begin,
         int64_t end) {
  along_row(end - begin, [&](auto kind, int64_t i) {
    using V = decltype(kind);
    V sum[kOut];
    for (int o = 0; o < kOut; ++o) sum[o] = V{} + bias[first + o];
    const float* weight = weights + first;
    for (const Map<const T>& input : inputs) {
      const V x = read<V>(input.start + begin + i);
      for (int o = 0; o < kOut; ++o) sum[o] += x * weight[o];
      weight += outputs.size();
    }
    for (int o = 0; o < kOut; ++o) {
      if (relu) sum[o] = sum[o] < 0 ? V{} : sum[o];  // false for NaN, so NaN stays NaN
      write(outputs[first + o].start + begin + i, sum[o]);
    }
  });
}

template <class T>
using Mix = decltype(&mix<T, 1>);
template <class T>
constexpr Mix<T> kMix[kMaxOut + 1] = {nullptr,   mix<T, 1>, mix<T, 2>, mix<T, 3>, mix<T, 4>,
                                      mix<T, 5>, mix<T, 6>, mix<T, 7>, mix<T, 8>};

// Returns the sum of the products of `count` voxels.
template <class T>
float sum_products(const T* x, const T* y, int64_t count) {
  Vec sum{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum += read<Vec>(x + i) * read<Vec>(y + i);
  float total = sum_of_lanes(sum);
  for (; i < count; ++i) total += read<float>(x + i) * read<float>(y + i);
  return total;
}

}  // namespace msseg
