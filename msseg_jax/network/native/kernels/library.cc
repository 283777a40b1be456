// The functions that XLA calls: 3-D convolutions with stride 1 and 'same' zero padding, their
// gradients, and the sums over voxels that batch norm needs. Feature maps are float32 or bfloat16.
// Products and sums are in float32, and so are kernels and biases.

#include <type_traits>

#include "convolve.h"
#include "direct.h"
#include "kernel_gradient.h"
#include "pointwise.h"
#include "volumes.h"

namespace ffi = xla::ffi;
using namespace msseg;

namespace {

using FloatArray = ffi::Buffer<ffi::F32>;
using FloatResult = ffi::ResultBuffer<ffi::F32>;

// Whether this CPU has instructions that multiply numbers of this type, other than floats.
template <class T>
constexpr bool is_multiplied = kMultipliesBFloat16 && std::is_same_v<T, BFloat16>;

// Calls f(T{}) with the type of the numbers in an array.
template <class F>
ffi::Error with_type(const ffi::AnyBuffer& array, F f) {
  switch (array.element_type()) {
    case ffi::DataType::F32: return f(float{});
    case ffi::DataType::BF16: return f(BFloat16{});
    default: return ffi::Error::InvalidArgument("feature maps must be float32 or bfloat16");
  }
}

template <class T>
Maps<const T> find_inputs(const ffi::RemainingArgs& inputs, const Shape& shape) {
  Maps<const T> maps(shape);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto input = inputs.get<ffi::AnyBuffer>(i).value();
    const T* start = reinterpret_cast<const T*>(input.untyped_data());
    maps.append(start, shape_of(input), input.dimensions()[4]);
  }
  return maps;
}

template <class T>
Maps<T> find_outputs(const ffi::RemainingRets& outputs, const Shape& shape) {
  Maps<T> maps(shape);
  for (size_t i = 0; i < outputs.size(); ++i) {
    auto output = outputs.get<ffi::AnyBuffer>(i).value();
    maps.append(reinterpret_cast<T*>(output->untyped_data()), shape_of(*output),
                output->dimensions()[4]);
  }
  return maps;
}

template <class T>
void convolve(ffi::ThreadPool& pool, const Shape& shape, int64_t size, const float* kernel,
              const float* bias, bool relu, const Maps<const T>& inputs, const Maps<T>& outputs) {
  if (shape.batch * shape.volume() == 0) return;
  const std::vector<Block> blocks = find_blocks(outputs[0]);
  if (size == 1) {
    const int64_t runs = (shape.volume() + kRun - 1) / kRun;
    parallel(pool, shape.batch * runs, [&](int64_t task) {
      const int64_t b = task / runs, begin = task % runs * kRun;
      const int64_t end = std::min(begin + kRun, shape.volume());
      for (const Block& block : blocks)
        kMix<T>[block.count](inputs[b], outputs[b], block.first, kernel, bias, relu, begin, end);
    });
    return;
  }
  const auto for_slabs = [&](auto run) {  // run(b, begin, end) for some planes of a volume
    parallel(pool, shape.batch * shape.slabs(), [&](int64_t task) {
      const int64_t begin = task % shape.slabs() * kSlab;
      run(task / shape.slabs(), begin, std::min(begin + kSlab, shape.depth));
    });
  };
  if constexpr (is_multiplied<T>) {
    const auto weights = kernel_pairs(kernel, inputs.channels(), outputs.channels(), blocks);
    for_slabs([&](int64_t b, int64_t begin, int64_t end) {
      convolve_slab_directly(shape, inputs[b], outputs[b], blocks, weights.data(), bias, relu,
                             begin, end);
    });
  } else {
    const auto weights = kernel_parts(kernel, inputs.channels(), outputs.channels(), blocks);
    for_slabs([&](int64_t b, int64_t begin, int64_t end) {
      convolve_slab(shape, inputs[b], outputs[b], blocks, weights.data(), bias, relu, begin, end);
    });
  }
}

ffi::Error convolve_arrays(ffi::ThreadPool pool, FloatArray kernel, FloatArray bias,
                           ffi::RemainingArgs inputs, bool relu,
                           ffi::Span<const int64_t> sides, ffi::RemainingRets outputs) {
  const Shape shape{sides[0], sides[1], sides[2], sides[3]};
  return with_type(inputs.get<ffi::AnyBuffer>(0).value(), [&](auto kind) {
    using T = decltype(kind);
    convolve<T>(pool, shape, kernel.dimensions()[0], kernel.typed_data(), bias.typed_data(), relu,
                find_inputs<T>(inputs, shape), find_outputs<T>(outputs, shape));
    return ffi::Error::Success();
  });
}

template <class T>
void kernel_gradient(ffi::ThreadPool& pool, const Shape& shape, int64_t size,
                     const Maps<const T>& inputs, const Maps<const T>& dy, float* gradient) {
  const int64_t c_in = inputs.channels(), c_out = dy.channels();
  if (shape.batch * shape.volume() == 0) return;
  const std::vector<Block> blocks = find_blocks(dy[0]);
  const int64_t per_volume = size == 1 ? (shape.volume() + kRun - 1) / kRun : shape.slabs();
  const int64_t tasks = shape.batch * per_volume;
  const int64_t each = size == 1 ? 1 : is_multiplied<T> ? 27 : kParts * 3;
  const int64_t count = each * c_in * c_out;
  std::vector<float> sums(tasks * count);  // each task has its own
  parallel(pool, tasks, [&](int64_t task) {
    const int64_t b = task / per_volume, part = task % per_volume;
    float* own = sums.data() + task * count;
    if (size == 1) {
      const int64_t begin = part * kRun, voxels = std::min(kRun, shape.volume() - begin);
      for (int64_t c = 0; c < c_in; ++c)
        for (int64_t o = 0; o < c_out; ++o)
          *own++ = sum_products(inputs[b][c].start + begin, dy[b][o].start + begin, voxels);
      return;
    }
    const int64_t begin = part * kSlab, end = std::min(begin + kSlab, shape.depth);
    if constexpr (is_multiplied<T>)
      sum_slab_directly(shape, inputs[b], dy[b], blocks, begin, end, own);
    else
      sum_slab(shape, inputs[b], dy[b], blocks, begin, end, own);
  });
  // Add up in the order of the tasks, not of the threads, so that the result is reproducible.
  std::vector<double> totals(count);
  for (int64_t task = 0; task < tasks; ++task)
    for (int64_t i = 0; i < count; ++i) totals[i] += sums[task * count + i];
  if (size == 1)
    std::copy(totals.begin(), totals.end(), gradient);
  else if constexpr (is_multiplied<T>)
    reorder(totals, c_in, c_out, blocks, gradient);
  else
    combine(totals, c_in, c_out, blocks, gradient);
}

ffi::Error kernel_gradient_arrays(ffi::ThreadPool pool, ffi::AnyBuffer dy,
                                  ffi::RemainingArgs inputs, FloatResult result) {
  const Shape shape = shape_of(dy);
  std::fill_n(result->typed_data(), result->element_count(), 0.f);  // for an empty batch
  return with_type(dy, [&](auto kind) {
    using T = decltype(kind);
    Maps<const T> dy_maps(shape);
    dy_maps.append(reinterpret_cast<const T*>(dy.untyped_data()), shape, dy.dimensions()[4]);
    kernel_gradient<T>(pool, shape, result->dimensions()[0], find_inputs<T>(inputs, shape), dy_maps,
                       result->typed_data());
    return ffi::Error::Success();
  });
}

// Computes the sum of x and of x * y in each channel, over all voxels of all volumes: (2, C).
ffi::Error channel_sums_arrays(ffi::ThreadPool pool, ffi::AnyBuffer x, ffi::AnyBuffer y,
                               FloatResult result) {
  const int64_t channels = x.dimensions()[4], volume = shape_of(x).volume();
  const int64_t parts = shape_of(x).batch * channels;
  return with_type(x, [&](auto kind) {
    using T = decltype(kind);
    std::vector<double> sums(2 * parts);  // one pair per volume and channel
    parallel(pool, parts, [&](int64_t part) {
      const T* xs = reinterpret_cast<const T*>(x.untyped_data()) + part * volume;
      const T* ys = reinterpret_cast<const T*>(y.untyped_data()) + part * volume;
      for (int64_t begin = 0; begin < volume; begin += kRun) {
        const int64_t end = std::min(begin + kRun, volume);
        Vec sum{}, products{};
        int64_t p = begin;
        for (; p + kLanes <= end; p += kLanes) {
          const Vec v = read<Vec>(xs + p);
          sum += v, products += v * read<Vec>(ys + p);
        }
        sums[2 * part] += sum_of_lanes(sum), sums[2 * part + 1] += sum_of_lanes(products);
        for (; p < end; ++p) {
          const float v = read<float>(xs + p);
          sums[2 * part] += v, sums[2 * part + 1] += v * read<float>(ys + p);
        }
      }
    });
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t which = 0; which < 2; ++which) {
        double total = 0;
        for (int64_t part = c; part < parts; part += channels) total += sums[2 * part + which];
        result->typed_data()[which * channels + c] = static_cast<float>(total);
      }
    return ffi::Error::Success();
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_channel_sums, channel_sums_arrays,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // x (B, D, H, W, C)
                                  .Arg<ffi::AnyBuffer>()  // y, with the same shape as x
                                  .Ret<FloatArray>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_convolve, convolve_arrays,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<FloatArray>()  // kernel (K, K, K, Cin, Cout)
                                  .Arg<FloatArray>()  // bias (Cout,)
                                  .RemainingArgs()    // inputs; their channels add up to Cin
                                  .Attr<bool>("relu")
                                  .Attr<ffi::Span<const int64_t>>("sides")  // B, D, H, W
                                  .RemainingRets());  // outputs; their channels add up to Cout

XLA_FFI_DEFINE_HANDLER_SYMBOL(msseg_kernel_gradient, kernel_gradient_arrays,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()  // dy (B, D, H, W, Cout)
                                  .RemainingArgs()        // inputs; their channels add up to Cin
                                  .Ret<FloatArray>());

// Returns how many floats a vector of these kernels has.
extern "C" int msseg_lanes() { return kLanes; }

// Returns whether convolutions multiply bfloat16 numbers without converting them to float32.
extern "C" bool msseg_multiplies_bfloat16() { return kMultipliesBFloat16; }
