// The forward pass by minimal filtering: a kernel of 3 x 3 x 3, a bias, and perhaps a ReLU.
#pragma once

#include <vector>

#include "filter.h"
#include "winograd.h"

namespace msseg {

// The kernel's parts, G g G': [block][part][Cin][kw][channel of the block].
inline std::vector<float> kernel_parts(const float* kernel, int64_t c_in, int64_t c_out,
                                       const std::vector<Block>& blocks) {
  std::vector<float> parts(kParts * 3 * c_in * c_out);
  float* to = parts.data();
  for (const Block& block : blocks)
    for (int part = 0; part < kParts; ++part)
      for (int64_t c = 0; c < c_in; ++c)
        for (int kw = 0; kw < 3; ++kw)
          for (int64_t o = block.first; o < block.first + block.count; ++o) {
            float sum = 0;
            for (int kd = 0; kd < 3; ++kd)
              for (int kh = 0; kh < 3; ++kh)
                sum += kFilter[part / 4][kd] * kFilter[part % 4][kh] *
                       kernel[(((kd * 3 + kh) * 3 + kw) * c_in + c) * c_out + o];
            *to++ = sum;
          }
  return parts;
}

// Combines the 16 parts of a tile row, m[k * step + ...], to its rows in two planes, A' m A.
// `to` has the rows 2 h and 2 h + 1 of the planes d and d + 1.
template <class T>
void gather_full(const float* m, int64_t step, int64_t width, float bias, bool relu, T* to[2][2]) {
  along_row(width, [&](auto kind, int64_t w) {
    using V = decltype(kind);
    V t[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const V m1 = read<V>(m + (4 + j) * step + w), m2 = read<V>(m + (8 + j) * step + w);
      t[0][j] = read<V>(m + j * step + w) + m1 + m2;
      t[1][j] = m1 - m2 - read<V>(m + (12 + j) * step + w);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      V y[2] = {t[i][0] + t[i][1] + t[i][2] + bias, t[i][1] - t[i][2] - t[i][3] + bias};
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        if (relu) y[j] = y[j] < 0 ? V{} : y[j];  // false for NaN, so NaN stays NaN
        write(to[i][j] + w, y[j]);
      }
    }
  });
}

// Sums the outputs of each block of 2 x 2 x 2 voxels of a tile row. The sum of two outputs along an
// axis is m0 + 2 m1 - m3. `sums` has room for a row.
template <class T>
void gather_half(const float* m, int64_t step, int64_t width, float* sums, T* to) {
  along_row(width, [&](auto kind, int64_t w) {
    using V = decltype(kind);
    V t[3];
    constexpr int kAt[3] = {0, 1, 3};
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      const float* from = m + kAt[j] * step + w;
      const V m1 = read<V>(from + 4 * step);
      t[j] = read<V>(from) + m1 + m1 - read<V>(from + 12 * step);
    }
    write(sums + w, t[0] + t[1] + t[1] - t[2]);
  });
  for (int64_t w = 0; w < width / 2; ++w) write(to + w, sums[2 * w] + sums[2 * w + 1]);
}

// Convolves planes begin ... end - 1 of one volume. T is the type of inputs and outputs. Outputs of
// half size get no bias and no ReLU.
template <class T>
void convolve_slab(const Shape& shape, const std::vector<Map<const T>>& inputs,
                   const std::vector<Map<T>>& outputs, const std::vector<Block>& blocks,
                   const float* weights, const float* bias, bool relu, int64_t begin, int64_t end) {
  const Chunks chunks(shape);
  const int64_t c_in = inputs.size(), step = kMaxOut * chunks.size;
  Inputs<T> parts(inputs, shape, chunks);
  Scratch<float> results(kParts * step), sums(shape.width + kLanes);
  std::vector<T> unused(shape.width);  // for rows outside the volume
  std::vector<Tap<float>> taps;
  for (int64_t first = 0; first < chunks.tile_rows; first += chunks.rows)
    for (int64_t d = begin; d < end; d += 2) {
      const int64_t last = std::min(first + chunks.rows, chunks.tile_rows);
      parts.fill(d, first, last);
      for (const Block& block : blocks) {
        for (int k = 0; k < kParts; ++k) {
          if (block.half && only_full(k)) continue;
          const float* own = weights + kParts * 3 * c_in * block.first + k * 3 * c_in * block.count;
          taps.clear();
          for (int64_t c = 0; c < c_in; ++c)
            if (!parts.is_zero(c, k)) taps.push_back({parts.part(c, k), own + c * 3 * block.count});
          kFilterRun<float>[block.count](taps, chunks.vectors(last - first), chunks.size,
                                         results.data() + k * step);
        }
        for (int64_t o = 0; o < block.count; ++o) {
          const Map<T>& map = outputs[block.first + o];
          const float* m = results.data() + o * chunks.size;
          for (int64_t row = first; row < last; ++row, m += chunks.stride) {
            if (block.half) {
              T* to = map.start + (d / 2 * (shape.height / 2) + row) * (shape.width / 2);
              gather_half(m, step, shape.width, sums.data(), to);
              continue;
            }
            T* to[2][2];
            for (int i = 0; i < 2; ++i)
              for (int j = 0; j < 2; ++j) {
                const int64_t h = 2 * row + j;
                const bool inside = d + i < shape.depth && h < shape.height;
                to[i][j] = inside ? map.start + ((d + i) * shape.height + h) * shape.width
                                  : unused.data();
              }
            gather_full(m, step, shape.width, bias[block.first + o], relu, to);
          }
        }
      }
    }
}

}  // namespace msseg
