// 3-D convolution for CPUs, with stride 1 and 'same' zero padding, and the sums over voxels that
// batch norm needs. XLA calls these functions.
//
// Arrays are planar, (B, C, D, H, W). JAX asks XLA for this layout of its (B, D, H, W, C) arrays.
// Vectors run along the voxels of a plane and not along the channels, so networks with 5 or 7
// feature maps waste no vector lanes.
//
// A plane of H x W voxels is copied into a scratch plane with a rim of zeros, in which a row has
// `stride` floats. For the output voxel at flat index p = h * stride + w, the tap (kh, kw) reads
// index p + kh * stride + kw. A tap is therefore one run of plain vector loads over the whole
// plane, without special cases at the edges. Results for the columns of the rim are discarded.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

#if defined(__AVX512F__)
constexpr int kLanes = 16, kAccumulators = 24;  // accumulators use 24 of 32 registers
#elif defined(__AVX__)
constexpr int kLanes = 8, kAccumulators = 12;  // accumulators use 12 of 16 registers
#else  // NEON, SSE
constexpr int kLanes = 4, kAccumulators = sizeof(void*) == 8 ? 16 : 8;
#endif
constexpr int kMaxOut = 8;   // maximum output channels computed at once
constexpr int kMaxVecs = 6;  // maximum vectors of positions computed at once
constexpr int kSlab = 8;     // maximum planes in one task
constexpr int kChunk = 512;  // positions per step of the kernel's gradient and of the sums; fits L1

typedef float Vec __attribute__((vector_size(kLanes * 4)));
typedef float LooseVec __attribute__((vector_size(kLanes * 4), aligned(4)));

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

struct Shape {
  int64_t batch, depth, height, width;

  int64_t plane() const { return height * width; }
  int64_t volume() const { return depth * plane(); }
};

// The layout of a scratch plane: `rim` zeros on each side of H x W voxels, and room for the last
// vectors to read past the end.
struct Padded {
  int64_t rim, stride, positions, size;

  Padded(const Shape& s, int64_t kernel_size)
      : rim(kernel_size / 2),
        stride(s.width + 2 * rim),
        positions(s.height * stride),
        size((s.height + 2 * rim) * stride + 2 * rim + kMaxVecs * kLanes) {}

  // Copies a plane of voxels into `to`. The rim of `to` must already be zero and is not written.
  void fill(const Shape& s, const float* from, float* to) const {
    for (int64_t h = 0; h < s.height; ++h)
      std::memcpy(to + (h + rim) * stride + rim, from + h * s.width, s.width * sizeof(float));
  }
};

// Runs task(0) ... task(count - 1) on XLA's threads and on this thread. Returns when all are done.
void parallel(ffi::ThreadPool& pool, int64_t count, const std::function<void(int64_t)>& task) {
  struct State {
    std::function<void(int64_t)> task;
    int64_t count;
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;

    void work() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) {
        task(i);
        if (done.fetch_add(1) + 1 == count) {
          std::lock_guard<std::mutex> lock(mutex);
          finished.notify_all();
        }
      }
    }
  };
  // The state is shared, because a helper may start after all tasks are done and this function has
  // returned. It then finds no task left.
  auto state = std::make_shared<State>();
  state->task = task;
  state->count = count;
  int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([state] { state->work(); });
  state->work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done == count; });
}

// Scratch planes for d - rim ... d + rim of all input channels. Each plane is copied only once.
class Ring {
 public:
  Ring(const Shape& shape, const Padded& padded, int64_t kernel_size,
       const std::vector<const float*>& channels)  // start of each channel of one volume
      : shape_(shape), padded_(padded), size_(kernel_size), channels_(channels),
        held_(kernel_size, -1), planes_(kernel_size * channels.size() * padded.size) {}

  const float* plane(int64_t d, int64_t channel) {
    int64_t slot = d % size_;
    if (held_[slot] != d) {
      held_[slot] = d;
      for (size_t c = 0; c < channels_.size(); ++c)
        padded_.fill(shape_, channels_[c] + d * shape_.plane(), at(slot, c));
    }
    return at(slot, channel);
  }

 private:
  float* at(int64_t slot, int64_t channel) {
    return planes_.data() + (slot * channels_.size() + channel) * padded_.size;
  }

  const Shape& shape_;
  const Padded& padded_;
  const int64_t size_;
  const std::vector<const float*>& channels_;
  std::vector<int64_t> held_;
  std::vector<float> planes_;
};

using Array = ffi::Buffer<ffi::F32>;

// Start of each channel of each volume, over all inputs: [b][channel].
using Channels = std::vector<std::vector<const float*>>;

Channels find_channels(const ffi::RemainingArgs& inputs, const Shape& shape) {
  Channels channels(shape.batch);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Array input = inputs.get<Array>(i).value();
    const int64_t count = input.dimensions()[4];
    for (int64_t b = 0; b < shape.batch; ++b)
      for (int64_t c = 0; c < count; ++c)
        channels[b].push_back(input.typed_data() + (b * count + c) * shape.volume());
  }
  return channels;
}

// ---------------------------------------------------------------------------- forward

// One tap for convolve_plane: the scratch plane of one (kd, channel) that lies inside the volume,
// and its weights, (kh, kw, kOut).
struct Tap {
  const float* plane;
  const float* weights;
};

// Computes one output plane of kOut channels: out[o * padded.size + p] for each position p.
template <int kOut>
void convolve_plane(const std::vector<Tap>& taps, const float* bias, bool relu, int64_t kernel_size,
                    const Padded& padded, float* out) {
  constexpr int kVecs = std::max(1, std::min(kMaxVecs, kAccumulators / kOut));
  for (int64_t p = 0; p < padded.positions; p += kVecs * kLanes) {
    Vec sum[kOut][kVecs];
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) sum[o][v] = Vec{} + bias[o];
    for (const Tap& tap : taps) {
      const float* weights = tap.weights;
      for (int64_t kh = 0; kh < kernel_size; ++kh) {
        const float* row = tap.plane + p + kh * padded.stride;
        for (int64_t kw = 0; kw < kernel_size; ++kw, weights += kOut) {
          Vec x[kVecs];
#pragma GCC unroll 8
          for (int v = 0; v < kVecs; ++v) x[v] = load(row + kw + v * kLanes);
#pragma GCC unroll 8
          for (int o = 0; o < kOut; ++o) {
            Vec weight = Vec{} + weights[o];
#pragma GCC unroll 8
            for (int v = 0; v < kVecs; ++v) sum[o][v] += weight * x[v];
          }
        }
      }
    }
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o)
#pragma GCC unroll 8
      for (int v = 0; v < kVecs; ++v) {
        Vec y = sum[o][v];
        if (relu) y = y < 0 ? Vec{} : y;  // the comparison is false for NaN, so NaN stays NaN
        store(out + o * padded.size + p + v * kLanes, y);
      }
  }
}

using ConvolvePlane = decltype(&convolve_plane<1>);
constexpr ConvolvePlane kConvolvePlane[] = {
    nullptr,           convolve_plane<1>, convolve_plane<2>, convolve_plane<3>, convolve_plane<4>,
    convolve_plane<5>, convolve_plane<6>, convolve_plane<7>, convolve_plane<8>};

ffi::Error convolve(ffi::ThreadPool pool, Array kernel, Array bias, ffi::RemainingArgs inputs,
                    bool relu, ffi::ResultBuffer<ffi::F32> result) {
  auto dims = result->dimensions();  // (B, D, H, W, Cout)
  const Shape shape{dims[0], dims[1], dims[2], dims[3]};
  const int64_t size = kernel.dimensions()[0], c_in = kernel.dimensions()[3], c_out = dims[4];
  const Padded padded(shape, size);

  // The weights of each block of output channels, in the order of use.
  std::vector<float> weights(kernel.element_count());  // (block, kd, Cin, kh, kw, kMaxOut or less)
  float* to = weights.data();
  for (int64_t first = 0; first < c_out; first += kMaxOut)
    for (int64_t kd = 0; kd < size; ++kd)
      for (int64_t c = 0; c < c_in; ++c)
        for (int64_t k = 0; k < size * size; ++k)
          for (int64_t o = first; o < std::min(first + kMaxOut, c_out); ++o)
            *to++ = kernel.typed_data()[((kd * size * size + k) * c_in + c) * c_out + o];

  const Channels channels = find_channels(inputs, shape);
  const int64_t slabs = (shape.depth + kSlab - 1) / kSlab;
  parallel(pool, shape.batch * slabs, [&](int64_t task) {
    const int64_t b = task / slabs, begin = task % slabs * kSlab;
    Ring ring(shape, padded, size, channels[b]);
    std::vector<float> out(kMaxOut * padded.size);
    std::vector<Tap> taps;
    for (int64_t d = begin; d < std::min(begin + kSlab, shape.depth); ++d) {
      const float* block = weights.data();
      for (int64_t first = 0; first < c_out; first += kMaxOut) {
        const int64_t outs = std::min<int64_t>(kMaxOut, c_out - first);
        taps.clear();
        for (int64_t kd = 0; kd < size; ++kd) {
          const int64_t from = d + kd - padded.rim;
          if (from < 0 || from >= shape.depth) continue;
          for (int64_t c = 0; c < c_in; ++c)
            taps.push_back({ring.plane(from, c), block + (kd * c_in + c) * size * size * outs});
        }
        kConvolvePlane[outs](taps, bias.typed_data() + first, relu, size, padded, out.data());
        for (int64_t o = 0; o < outs; ++o) {
          float* y = result->typed_data() + ((b * c_out + first + o) * shape.depth + d) * shape.plane();
          for (int64_t h = 0; h < shape.height; ++h)
            std::memcpy(y + h * shape.width, out.data() + o * padded.size + h * padded.stride,
                        shape.width * sizeof(float));
        }
        block += size * c_in * size * size * outs;
      }
    }
  });
  return ffi::Error::Success();
}

// ---------------------------------------------------------------------------- kernel's gradient

// Adds the products of x and dy over positions begin ... end, for kOut output channels and kTaps
// neighbouring taps of a kernel row: sums[t * kOut + o] += x[p + t] * dy[o * dy_size + p].
template <int kOut, int kTaps>
void add_products(const float* x, const float* dy, int64_t dy_size, int64_t begin, int64_t end,
                  Vec* sums) {
  Vec sum[kTaps][kOut];
#pragma GCC unroll 8
  for (int t = 0; t < kTaps; ++t)
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) sum[t][o] = sums[t * kOut + o];
  for (int64_t p = begin; p < end; p += kLanes) {
    Vec xs[kTaps];
#pragma GCC unroll 8
    for (int t = 0; t < kTaps; ++t) xs[t] = load(x + p + t);
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) {
      Vec y = load(dy + o * dy_size + p);
#pragma GCC unroll 8
      for (int t = 0; t < kTaps; ++t) sum[t][o] += xs[t] * y;
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < kTaps; ++t)
#pragma GCC unroll 8
    for (int o = 0; o < kOut; ++o) sums[t * kOut + o] = sum[t][o];
}

// Does the same for all kernel_size taps of a kernel row.
template <int kOut>
void add_kernel_row(const float* x, const float* dy, int64_t dy_size, int64_t begin, int64_t end,
                    int64_t kernel_size, Vec* sums) {
  if (kernel_size == 3 && 3 * kOut <= kAccumulators) {
    add_products<kOut, 3>(x, dy, dy_size, begin, end, sums);
  } else {
    for (int64_t kw = 0; kw < kernel_size; ++kw)
      add_products<kOut, 1>(x + kw, dy, dy_size, begin, end, sums + kw * kOut);
  }
}

using AddKernelRow = decltype(&add_kernel_row<1>);
constexpr AddKernelRow kAddKernelRow[] = {
    nullptr,           add_kernel_row<1>, add_kernel_row<2>, add_kernel_row<3>, add_kernel_row<4>,
    add_kernel_row<5>, add_kernel_row<6>, add_kernel_row<7>, add_kernel_row<8>};

ffi::Error kernel_gradient(ffi::ThreadPool pool, Array dy, ffi::RemainingArgs inputs,
                           ffi::ResultBuffer<ffi::F32> result) {
  auto dims = dy.dimensions();  // (B, D, H, W, Cout)
  const Shape shape{dims[0], dims[1], dims[2], dims[3]};
  const int64_t size = result->dimensions()[0], c_in = result->dimensions()[3], c_out = dims[4];
  const Padded padded(shape, size);
  const int64_t count = result->element_count();
  const int64_t slabs = (shape.depth + kSlab - 1) / kSlab;
  const Channels channels = find_channels(inputs, shape);
  std::vector<float> parts(shape.batch * slabs * count);  // one kernel gradient per task

  parallel(pool, shape.batch * slabs, [&](int64_t task) {
    const int64_t b = task / slabs, begin = task % slabs * kSlab;
    Ring ring(shape, padded, size, channels[b]);
    std::vector<float> dy_plane(kMaxOut * padded.size);  // same row stride as x, zeros between rows
    // Sums per lane: (block, kd, Cin, kh, kw, outs)
    std::unique_ptr<Vec[]> sums(new Vec[count]());
    for (int64_t d = begin; d < std::min(begin + kSlab, shape.depth); ++d) {
      Vec* block = sums.get();
      for (int64_t first = 0; first < c_out; first += kMaxOut) {
        const int64_t outs = std::min<int64_t>(kMaxOut, c_out - first);
        for (int64_t o = 0; o < outs; ++o) {
          const float* from =
              dy.typed_data() + ((b * c_out + first + o) * shape.depth + d) * shape.plane();
          for (int64_t h = 0; h < shape.height; ++h)
            std::memcpy(dy_plane.data() + o * padded.size + h * padded.stride,
                        from + h * shape.width, shape.width * sizeof(float));
        }
        for (int64_t p = 0; p < padded.positions; p += kChunk) {
          const int64_t end = std::min(p + kChunk, padded.positions);
          for (int64_t kd = 0; kd < size; ++kd) {
            const int64_t from = d + kd - padded.rim;
            if (from < 0 || from >= shape.depth) continue;
            for (int64_t c = 0; c < c_in; ++c)
              for (int64_t kh = 0; kh < size; ++kh)
                kAddKernelRow[outs](ring.plane(from, c) + kh * padded.stride, dy_plane.data(),
                                    padded.size, p, end, size,
                                    block + ((kd * c_in + c) * size + kh) * size * outs);
          }
        }
        block += size * c_in * size * size * outs;
      }
    }
    // Add up the lanes, and store the sums in the order of the kernel, (kd, kh, kw, Cin, Cout).
    float* part = parts.data() + task * count;
    const Vec* sum = sums.get();
    for (int64_t first = 0; first < c_out; first += kMaxOut)
      for (int64_t kd = 0; kd < size; ++kd)
        for (int64_t c = 0; c < c_in; ++c)
          for (int64_t k = 0; k < size * size; ++k)
            for (int64_t o = first; o < std::min(first + kMaxOut, c_out); ++o, ++sum) {
              float total = 0;
              for (int lane = 0; lane < kLanes; ++lane) total += (*sum)[lane];
              part[((kd * size * size + k) * c_in + c) * c_out + o] = total;
            }
  });

  // Add up in the order of the tasks, not of the threads, so that the result is reproducible.
  float* gradient = result->typed_data();
  for (int64_t i = 0; i < count; ++i) {
    double total = 0;
    for (int64_t task = 0; task < shape.batch * slabs; ++task) total += parts[task * count + i];
    gradient[i] = static_cast<float>(total);
  }
  return ffi::Error::Success();
}

// ---------------------------------------------------------------------------- sums

// Computes the sum of x and of x * y in each channel, over all voxels of all volumes: (2, C).
ffi::Error channel_sums(ffi::ThreadPool pool, Array x, Array y, ffi::ResultBuffer<ffi::F32> result) {
  auto dims = x.dimensions();  // (B, D, H, W, C)
  const Shape shape{dims[0], dims[1], dims[2], dims[3]};
  const int64_t channels = dims[4], volume = shape.volume(), parts = shape.batch * channels;
  std::vector<double> sums(2 * parts);  // one pair per volume and channel
  parallel(pool, parts, [&](int64_t part) {
    const float *xs = x.typed_data() + part * volume, *ys = y.typed_data() + part * volume;
    double total = 0, product = 0;
    for (int64_t begin = 0; begin < volume; begin += kChunk) {  // short: float32 sums stay accurate
      const int64_t end = std::min(begin + kChunk, volume);
      Vec sum{}, products{};
      int64_t p = begin;
      for (; p + kLanes <= end; p += kLanes) {
        const Vec v = load(xs + p);
        sum += v;
        products += v * load(ys + p);
      }
      for (int lane = 0; lane < kLanes; ++lane) total += sum[lane], product += products[lane];
      for (; p < end; ++p) total += xs[p], product += xs[p] * ys[p];
    }
    sums[2 * part] = total;
    sums[2 * part + 1] = product;
  });
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t kind = 0; kind < 2; ++kind) {
      double total = 0;
      for (int64_t b = 0; b < shape.batch; ++b) total += sums[2 * (b * channels + c) + kind];
      result->typed_data()[kind * channels + c] = static_cast<float>(total);
    }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_channel_sums, channel_sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()  // x (B, D, H, W, C)
                                  .Arg<Array>()  // y, with the same shape as x
                                  .Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_convolve, convolve,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()      // kernel (K, K, K, Cin, Cout)
                                  .Arg<Array>()      // bias (Cout,)
                                  .RemainingArgs()   // inputs; their channels add up to Cin
                                  .Attr<bool>("relu")
                                  .Ret<Array>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_kernel_gradient, kernel_gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Array>()     // dy (B, D, H, W, Cout)
                                  .RemainingArgs()  // inputs; their channels add up to Cin
                                  .Ret<Array>());
