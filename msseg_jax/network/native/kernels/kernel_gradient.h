// The gradient with respect to a kernel of 3 x 3 x 3.
//
// The derivative of F(2, 3) with respect to g is G' [(B' x) * (A dy)]. So products of the parts of
// the inputs and of dy, A dy A', are summed over all tiles. G is applied once, at the end.
#pragma once

#include <memory>
#include <vector>

#include "products.h"
#include "winograd.h"

namespace msseg {

// Writes the parts of one map of dy for tile rows first ... last - 1: to[part * step + ...]. The
// last two columns of each row stay 0, so positions there add nothing.
template <class T>
void spread_dy(const Rows<T>& rows, int64_t d, int64_t first, int64_t last, int64_t stride,
               int64_t step, float* to) {
  for (int64_t row = first; row < last; ++row, to += stride) {
    const T* from[2][2] = {{rows(d, 2 * row), rows(d, 2 * row + 1)},
                           {rows(d + 1, 2 * row), rows(d + 1, 2 * row + 1)}};
    along_row(rows.width(), [&](auto kind, int64_t w) {
      using V = decltype(kind);
      V t[4][2];
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        const V a = read<V>(from[0][j] + w), b = read<V>(from[1][j] + w);
        t[0][j] = a, t[1][j] = a + b, t[2][j] = a - b, t[3][j] = -b;
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const V a = t[i][0], b = t[i][1];
        float* own = to + 4 * i * step + w;
        write(own, a), write(own + step, a + b), write(own + 2 * step, a - b),
            write(own + 3 * step, -b);
      }
    });
  }
}

// Sums the products over planes begin ... end - 1 of one volume: sums[block][part][Cin][kw][channel
// of the block], kParts * 3 * Cin * Cout floats.
template <class T>
void sum_slab(const Shape& shape, const std::vector<Map<const T>>& inputs,
              const std::vector<Map<const T>>& dy, const std::vector<Block>& blocks, int64_t begin,
              int64_t end, float* sums) {
  const Chunks chunks(shape);
  const int64_t c_in = inputs.size(), step = kMaxOut * chunks.size;
  const int64_t count = kParts * 3 * c_in * dy.size();
  Inputs<T> parts(inputs, shape, chunks);
  Scratch<float> dy_parts(kParts * step);
  Zeros<T> zeros(shape.width + kLanes);
  Zeros<float> lanes(count * kLanes);
  for (int64_t first = 0; first < chunks.tile_rows; first += chunks.rows) {
    const int64_t last = std::min(first + chunks.rows, chunks.tile_rows);
    dy_parts.clear();  // the last chunk may have fewer rows than the one before
    for (int64_t d = begin; d < end; d += 2) {
      parts.fill(d, first, last);
      Vec* own = reinterpret_cast<Vec*>(lanes.data());
      for (const Block& block : blocks) {
        for (int64_t o = 0; o < block.count; ++o)
          spread_dy(Rows<T>(dy[block.first + o], shape, zeros.data()), d, first, last,
                    chunks.stride, step, dy_parts.data() + o * chunks.size);
        for (int k = 0; k < kParts; ++k)
          for (int64_t c = 0; c < c_in; ++c, own += 3 * block.count)
            if (!parts.is_zero(c, k))
              kAddTaps<float>[block.count](parts.part(c, k), dy_parts.data() + k * step,
                                           chunks.size, chunks.positions(last - first), own);
      }
    }
  }
  const Vec* sum = reinterpret_cast<const Vec*>(lanes.data());
  for (int64_t i = 0; i < count; ++i) sums[i] = sum_of_lanes(sum[i]);
}

// Applies G to the sums: (3, 3, 3, Cin, Cout).
inline void combine(const std::vector<double>& sums, int64_t c_in, int64_t c_out,
                    const std::vector<Block>& blocks, float* gradient) {
  std::vector<double> totals(27 * c_in * c_out);
  const double* sum = sums.data();
  for (const Block& block : blocks)
    for (int part = 0; part < kParts; ++part)
      for (int64_t c = 0; c < c_in; ++c)
        for (int kw = 0; kw < 3; ++kw)
          for (int64_t o = block.first; o < block.first + block.count; ++o, ++sum)
            for (int kd = 0; kd < 3; ++kd)
              for (int kh = 0; kh < 3; ++kh)
                totals[(((kd * 3 + kh) * 3 + kw) * c_in + c) * c_out + o] +=
                    kFilter[part / 4][kd] * kFilter[part % 4][kh] * *sum;
  std::copy(totals.begin(), totals.end(), gradient);
}

}  // namespace msseg
