// Minimal filtering (Winograd 1980; Lavin & Gray, "Fast algorithms for convolutional neural
// networks", CVPR 2016), along D and H.
//
// Two neighbouring outputs of a filter with three taps need six multiplications. F(2, 3) needs 4:
//
//     y = A' [(G g) * (B' x)]    with y two outputs, g three taps, x four inputs, * by element
//
// Here, a tile is 2 x 2 voxels along D and H. Its 4 x 4 inputs give 16 `parts`, B' x B. Each part
// is filtered along W only, with three taps. A tile needs 16 * 3 multiplications for each pair of
// channels, and not 4 * 27. The parts of the outputs are then combined, A' m A. The matrices A and
// B contain only 0, 1 and -1, so the result differs from the plain sum by a few roundings. An
// infinite input gives NaN wherever the kernel reaches it.
//
// An input that is repeated in blocks of 2 x 2 x 2 voxels (upsampling) has the values a, b, b, c
// along an axis of a tile. Then one of the four parts of that axis is 0, and 9 of 16 remain. The
// sum over each block of an output, which is the gradient of upsampling, needs only these 9 parts.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "vectors.h"
#include "volumes.h"

namespace msseg {

constexpr int kParts = 16;             // part 4 * i + j: i along D, j along H
constexpr int64_t kPositions = 448;    // about so many in a chunk; the parts of a layer then fit L2
constexpr float kFilter[4][3] = {{1, 0, 0}, {.5f, .5f, .5f}, {.5f, -.5f, .5f}, {0, 0, 1}};  // G

// Returns whether a part is 0 for an input of half size, and not needed for an output of half size.
inline bool only_full(int part) { return part / 4 == 2 || part % 4 == 2; }

// A tile row is the tiles along W of one row pair. A chunk is some neighbouring tile rows. In the
// scratch memory of a part, a tile row has `stride` floats: W columns between two zeros. Output
// position p = row * stride + w reads the positions p, p + 1 and p + 2. So a chunk is one run of
// positions, without special cases at the edges. Results for the last two columns are discarded.
struct Chunks {
  int64_t tile_rows, rows, stride;  // rows: maximum tile rows in a chunk
  int64_t size;                     // floats in the scratch memory of one map of one part

  explicit Chunks(const Shape& shape) : tile_rows((shape.height + 1) / 2), stride(shape.width + 2) {
    const int64_t most = std::max<int64_t>(1, kPositions / stride);
    const int64_t chunks = (tile_rows + most - 1) / most;
    rows = (tile_rows + chunks - 1) / chunks;
    // An odd number of vectors, so that neighbouring maps do not compete for the same cache lines.
    // It leaves room for the last vector, which may read past the last position.
    size = ((vectors(rows) + 1) | 1) * kLanes;
  }
  int64_t positions(int64_t count) const { return count * stride - 2; }
  int64_t vectors(int64_t count) const { return (positions(count) + kLanes - 1) / kLanes; }
};

// The rows of a map. Rows outside of it are zeros.
template <class T>
class Rows {
 public:
  Rows(const Map<const T>& map, const Shape& shape, const T* zeros)
      : start_(map.start), shape_(map.half ? shape.half() : shape), zeros_(zeros) {}

  const T* operator()(int64_t d, int64_t h) const {
    const bool inside = 0 <= d && d < shape_.depth && 0 <= h && h < shape_.height;
    return inside ? start_ + (d * shape_.height + h) * shape_.width : zeros_;
  }
  int64_t width() const { return shape_.width; }

 private:
  const T* start_;
  Shape shape_;
  const T* zeros_;
};

// B' x for the four inputs of a tile along one axis.
template <class V>
inline void spread(V& a, V& b, V& c, V& d) {
  const V first = a - c, second = b + c, third = c - b, fourth = b - d;
  a = first, b = second, c = third, d = fourth;
}

// Writes the parts of tile rows first ... last - 1 of planes d and d + 1: to[part * size + ...].
template <class T>
void spread_full(const Rows<T>& rows, int64_t d, int64_t first, int64_t last, const Chunks& chunks,
                 float* to) {
  for (int64_t row = first; row < last; ++row, to += chunks.stride) {
    const T* from[4][4];
    for (int i = 0; i < 4; ++i)
      for (int j = 0; j < 4; ++j) from[i][j] = rows(d - 1 + i, 2 * row - 1 + j);
    along_row(rows.width(), [&](auto kind, int64_t w) {
      using V = decltype(kind);
      V x[4][4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) x[i][j] = read<V>(from[i][j] + w);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) spread(x[0][j], x[1][j], x[2][j], x[3][j]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) spread(x[i][0], x[i][1], x[i][2], x[i][3]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) write(to + (4 * i + j) * chunks.size + 1 + w, x[i][j]);
    });
  }
}

// Does the same for a map of half size, which has one row where the convolution has two. Parts that
// are 0 are not written. `narrow` has room for 9 rows of the map.
template <class T>
void spread_half(const Rows<T>& rows, int64_t d, int64_t first, int64_t last, const Chunks& chunks,
                 float* narrow, float* to) {
  const int64_t width = rows.width();
  constexpr int kAt[3] = {0, 1, 3};
  for (int64_t row = first; row < last; ++row, to += chunks.stride) {
    const T* from[3][3];
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) from[i][j] = rows(d / 2 - 1 + i, row - 1 + j);
    along_row(width, [&](auto kind, int64_t w) {
      using V = decltype(kind);
      const auto spread_repeated = [](V& a, V& b, V& c) { a = a - b, c = b - c, b = b + b; };
      V x[3][3];
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) x[i][j] = read<V>(from[i][j] + w);
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) spread_repeated(x[0][j], x[1][j], x[2][j]);
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i) spread_repeated(x[i][0], x[i][1], x[i][2]);
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i)
#pragma GCC unroll 3
        for (int j = 0; j < 3; ++j) write(narrow + (3 * i + j) * width + w, x[i][j]);
    });
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 3; ++j) {
        const float* __restrict source = narrow + (3 * i + j) * width;
        float* __restrict wide = to + (4 * kAt[i] + kAt[j]) * chunks.size + 1;
        for (int64_t w = 0; w < width; ++w) wide[2 * w] = wide[2 * w + 1] = source[w];
      }
  }
}

// The parts of all input maps for one chunk of two planes: part(c, k) is part k of map c.
template <class T>
class Inputs {
 public:
  Inputs(const std::vector<Map<const T>>& maps, const Shape& shape, const Chunks& chunks)
      : maps_(maps), shape_(shape), chunks_(chunks), zeros_(shape.width + kLanes),
        narrow_(9 * (shape.width + kLanes)), parts_(maps.size() * kParts * chunks.size) {
    for (size_t c = 0; c < maps.size(); ++c)
      for (int k = 0; k < kParts; ++k) clear_rim(part(c, k));
  }

  void fill(int64_t d, int64_t first, int64_t last) {
    for (size_t c = 0; c < maps_.size(); ++c) {
      const Rows<T> rows(maps_[c], shape_, zeros_.data());
      if (maps_[c].half)
        spread_half(rows, d, first, last, chunks_, narrow_.data(), part(c, 0));
      else
        spread_full(rows, d, first, last, chunks_, part(c, 0));
    }
  }
  float* part(int64_t c, int k) { return parts_.data() + (c * kParts + k) * chunks_.size; }
  bool is_zero(int64_t c, int k) const { return maps_[c].half && only_full(k); }
  int64_t channels() const { return maps_.size(); }

 private:
  // Sets what `fill` does not write: the columns beside each row, and what follows the last row.
  void clear_rim(float* part) const {
    for (int64_t row = 0; row < chunks_.rows; ++row, part += chunks_.stride)
      part[0] = part[chunks_.stride - 1] = 0;
    std::fill(part, part + chunks_.size - chunks_.rows * chunks_.stride, 0.f);
  }

  const std::vector<Map<const T>>& maps_;
  const Shape shape_;
  const Chunks& chunks_;
  Zeros<T> zeros_;
  Scratch<float> narrow_, parts_;
};

}  // namespace msseg
