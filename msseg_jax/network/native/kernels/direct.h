// Convolutions of bfloat16 maps as plain sums over 27 taps, for CPUs that multiply bfloat16.
//
// Minimal filtering would have to round its parts to bfloat16. Plain sums multiply the numbers as
// they are, so only results are rounded. With two products per lane they are as fast.
//
// A plane of H x W voxels is copied into scratch memory with a rim of zeros, in which a row has
// W + 2 numbers. Output position p = h * stride + w of the tap (kh, kw) reads p + kh * stride + kw.
// So a tap is one run of positions over the whole plane. Results for the columns of the rim are
// discarded.
#pragma once

#include <vector>

#include "filter.h"
#include "products.h"

namespace msseg {

// The size of a plane in scratch memory. It leaves room for the last vectors, which read past the
// end of the plane, and is an odd number of cache lines, as in `Chunks`.
struct Plane {
  int64_t stride, positions, size;

  explicit Plane(const Shape& shape)
      : stride(shape.width + 2), positions(shape.height * stride - 2),
        size((((shape.height + 2) * stride + 4 * kLanes) / 32 | 1) * 32 + 32) {}
};

inline uint16_t rounded_bits(float x) {
  BFloat16 rounded;
  write(&rounded, x);
  return rounded.bits;
}

// Copies plane d of a map to scratch memory, where `to` is the place of the first voxel. If the map
// has half size, each of its voxels is repeated. `store(place, bits)` stores one number.
template <class N, class Store>
void copy_plane(const Map<const BFloat16>& map, const Shape& shape, int64_t d, const Plane& plane,
                N* to, Store store) {
  const int64_t step = map.half ? 2 : 1;
  const Shape own = map.half ? shape.half() : shape;
  const BFloat16* from = map.start + d / step * own.plane();
  for (int64_t h = 0; h < shape.height; ++h) {
    const BFloat16* __restrict row = from + h / step * own.width;
    N* __restrict wide = to + h * plane.stride;
    if (map.half)
      for (int64_t w = 0; w < own.width; ++w)
        store(wide + 2 * w, row[w].bits), store(wide + 2 * w + 1, row[w].bits);
    else
      for (int64_t w = 0; w < own.width; ++w) store(wide + w, row[w].bits);
  }
}

// Scratch planes d - 1 ... d + 1 of all maps. Each plane is filled only once. `fill(d, slot)` fills
// one of the three slots.
class Ring {
 public:
  template <class Fill>
  int64_t slot(int64_t d, Fill fill) {
    const int64_t slot = d % 3;
    if (held_[slot] != d) {
      held_[slot] = d;
      fill(d, slot);
    }
    return slot;
  }

 private:
  int64_t held_[3] = {-1, -1, -1};
};

// The kernel in pairs of two input channels: [block][kd][pair][kh][kw][channel of the block].
inline std::vector<uint32_t> kernel_pairs(const float* kernel, int64_t c_in, int64_t c_out,
                                          const std::vector<Block>& blocks) {
  const int64_t pairs = (c_in + 1) / 2;
  std::vector<uint32_t> packed(27 * pairs * c_out);
  uint32_t* to = packed.data();
  for (const Block& block : blocks)
    for (int64_t kd = 0; kd < 3; ++kd)
      for (int64_t pair = 0; pair < pairs; ++pair)
        for (int64_t k = 0; k < 9; ++k)
          for (int64_t o = block.first; o < block.first + block.count; ++o, ++to)
            for (int64_t c = 2 * pair; c < std::min(2 * pair + 2, c_in); ++c)
              *to |= uint32_t{rounded_bits(kernel[((kd * 9 + k) * c_in + c) * c_out + o])}
                     << (c % 2 * 16);
  return packed;
}

// Convolves planes begin ... end - 1 of one volume; begin and, for outputs of half size, end are
// even. Outputs of half size get no bias and no ReLU.
inline void convolve_slab_directly(const Shape& shape,
                                   const std::vector<Map<const BFloat16>>& inputs,
                                   const std::vector<Map<BFloat16>>& outputs,
                                   const std::vector<Block>& blocks, const uint32_t* weights,
                                   const float* bias, bool relu, int64_t begin, int64_t end) {
  const Plane plane(shape);
  const int64_t c_in = inputs.size(), pairs = (c_in + 1) / 2;
  const int64_t vectors = (plane.positions + kLanes - 1) / kLanes;
  Zeros<uint32_t> planes(3 * pairs * plane.size);
  Scratch<float> results(kMaxOut * plane.size);
  Scratch<float> sums(outputs.size() * shape.half().plane());  // of a plane of half size
  std::vector<Tap<uint32_t>> taps;
  Ring ring;
  const auto fill = [&](int64_t d, int64_t slot) {
    for (int64_t c = 0; c < c_in; ++c) {
      uint32_t* to = planes.data() + (slot * pairs + c / 2) * plane.size + plane.stride + 1;
      if (c % 2 == 0)
        copy_plane(inputs[c], shape, d, plane, to, [](uint32_t* p, uint32_t x) { *p = x; });
      else
        copy_plane(inputs[c], shape, d, plane, to, [](uint32_t* p, uint32_t x) { *p |= x << 16; });
    }
  };
  for (int64_t d = begin; d < end; ++d)
    for (const Block& block : blocks) {
      taps.clear();
      for (int64_t kd = 0; kd < 3; ++kd) {
        const int64_t from = d + kd - 1;
        if (from < 0 || from >= shape.depth) continue;
        const int64_t slot = ring.slot(from, fill);
        for (int64_t pair = 0; pair < pairs; ++pair)
          for (int64_t kh = 0; kh < 3; ++kh)
            taps.push_back({planes.data() + (slot * pairs + pair) * plane.size + kh * plane.stride,
                            weights + 27 * pairs * block.first +
                                ((kd * pairs + pair) * 9 + kh * 3) * block.count});
      }
      kFilterRun<uint32_t>[block.count](taps, vectors, plane.size, results.data());
      for (int64_t o = 0; o < block.count; ++o) {
        const Map<BFloat16>& map = outputs[block.first + o];
        const float own_bias = bias[block.first + o];
        for (int64_t h = 0; h < shape.height; ++h) {
          const float* y = results.data() + o * plane.size + h * plane.stride;
          if (!map.half) {
            BFloat16* to = map.start + (d * shape.height + h) * shape.width;
            along_row(shape.width, [&](auto kind, int64_t w) {
              using V = decltype(kind);
              V x = read<V>(y + w) + own_bias;
              if (relu) x = x < 0 ? V{} : x;  // false for NaN, so NaN stays NaN
              write(to + w, x);
            });
            continue;
          }
          const int64_t half = shape.width / 2;
          float* sum = sums.data() + (block.first + o) * shape.half().plane() + h / 2 * half;
          const bool first = d % 2 == 0 && h % 2 == 0;
          for (int64_t w = 0; w < half; ++w)
            sum[w] = (first ? 0 : sum[w]) + (y[2 * w] + y[2 * w + 1]);
          if (d % 2 == 0 || h % 2 == 0) continue;
          BFloat16* to = map.start + (d / 2 * (shape.height / 2) + h / 2) * half;
          for (int64_t w = 0; w < half; ++w) write(to + w, sum[w]);
        }
      }
    }
}

// Sums the products of x and dy over planes begin ... end - 1 of one volume, for all taps:
// sums[block][kd][Cin][kh][kw][channel of the block].
inline void sum_slab_directly(const Shape& shape, const std::vector<Map<const BFloat16>>& inputs,
                              const std::vector<Map<const BFloat16>>& dy,
                              const std::vector<Block>& blocks, int64_t begin, int64_t end,
                              float* sums) {
  constexpr int64_t kPositionsAtOnce = 1024;  // the planes of dy then stay in the L1 cache
  const Plane plane(shape);
  const int64_t c_in = inputs.size(), count = 27 * c_in * dy.size();
  Zeros<BFloat16> planes(3 * c_in * plane.size), dy_planes(kMaxOut * plane.size);
  Zeros<float> lanes(count * kLanes);
  Ring ring;
  const auto store = [](BFloat16* p, uint16_t x) { p->bits = x; };
  const auto fill = [&](int64_t d, int64_t slot) {
    for (int64_t c = 0; c < c_in; ++c)
      copy_plane(inputs[c], shape, d, plane,
                 planes.data() + (slot * c_in + c) * plane.size + plane.stride + 1, store);
  };
  for (int64_t d = begin; d < end; ++d) {
    Vec* own = reinterpret_cast<Vec*>(lanes.data());
    for (const Block& block : blocks) {
      // dy starts at position 0. It has zeros between its rows, so positions there add nothing.
      for (int64_t o = 0; o < block.count; ++o)
        copy_plane(dy[block.first + o], shape, d, plane, dy_planes.data() + o * plane.size, store);
      for (int64_t p = 0; p < plane.positions; p += kPositionsAtOnce) {
        const int64_t positions = std::min(kPositionsAtOnce, plane.positions - p);
        for (int64_t kd = 0; kd < 3; ++kd) {
          const int64_t from = d + kd - 1;
          if (from < 0 || from >= shape.depth) continue;
          const int64_t slot = ring.slot(from, fill);
          for (int64_t c = 0; c < c_in; ++c)
            for (int64_t kh = 0; kh < 3; ++kh)
              kAddTaps<BFloat16>[block.count](
                  planes.data() + (slot * c_in + c) * plane.size + kh * plane.stride + p,
                  dy_planes.data() + p, plane.size, positions,
                  own + ((kd * c_in + c) * 3 + kh) * 3 * block.count);
        }
      }
      own += 27 * c_in * block.count;
    }
  }
  const Vec* sum = reinterpret_cast<const Vec*>(lanes.data());
  for (int64_t i = 0; i < count; ++i) sums[i] = sum_of_lanes(sum[i]);
}

// Stores the sums in the order of the kernel: (3, 3, 3, Cin, Cout).
inline void reorder(const std::vector<double>& sums, int64_t c_in, int64_t c_out,
                    const std::vector<Block>& blocks, float* gradient) {
  const double* sum = sums.data();
  for (const Block& block : blocks)
    for (int64_t kd = 0; kd < 3; ++kd)
      for (int64_t c = 0; c < c_in; ++c)
        for (int64_t k = 0; k < 9; ++k)
          for (int64_t o = block.first; o < block.first + block.count; ++o)
            gradient[((kd * 9 + k) * c_in + c) * c_out + o] = static_cast<float>(*sum++);
}

}  // namespace msseg
