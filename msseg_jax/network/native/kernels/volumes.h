// Volumes in memory, and tasks that run on all threads.
//
// Arrays are planar, (B, C, D, H, W). JAX asks XLA for this layout of its (B, D, H, W, C) arrays.
// Vectors run along the voxels and not along the channels, so networks with 5 or 7 feature maps
// waste no vector lanes.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace msseg {

namespace ffi = xla::ffi;

constexpr int64_t kSlab = 8;    // maximum planes in one task; even
constexpr int64_t kMaxOut = 8;  // maximum output channels computed at once

struct Shape {
  int64_t batch, depth, height, width;

  int64_t plane() const { return height * width; }
  int64_t volume() const { return depth * plane(); }
  int64_t slabs() const { return (depth + kSlab - 1) / kSlab; }

  // The shape of an array with half as many voxels along each axis.
  Shape half() const { return {batch, depth / 2, height / 2, width / 2}; }
};

inline Shape shape_of(const ffi::AnyBuffer& array) {
  const auto sides = array.dimensions();  // (B, D, H, W, C)
  return {sides[0], sides[1], sides[2], sides[3]};
}

// One feature map of one volume. If `half`, it has half as many voxels along each axis as the
// convolution, and each of its voxels stands for a block of 2 x 2 x 2 voxels.
template <class T>
struct Map {
  T* start;
  bool half;
};

// The maps of some arrays, concatenated: maps[b][channel]. Arrays that are smaller than `shape` are
// half as large.
template <class T>
class Maps {
 public:
  explicit Maps(const Shape& shape) : shape_(shape), maps_(shape.batch) {}

  void append(T* start, const Shape& own, int64_t channels) {
    const bool half = own.depth != shape_.depth;
    for (int64_t b = 0; b < shape_.batch; ++b)
      for (int64_t c = 0; c < channels; ++c)
        maps_[b].push_back({start + (b * channels + c) * own.volume(), half});
  }
  const std::vector<Map<T>>& operator[](int64_t b) const { return maps_[b]; }
  int64_t channels() const { return maps_.empty() ? 0 : maps_[0].size(); }

 private:
  const Shape shape_;
  std::vector<std::vector<Map<T>>> maps_;
};

// Consecutive output channels that are computed at once: of one size, and at most kMaxOut.
struct Block {
  int64_t first, count;
  bool half;
};

template <class T>
std::vector<Block> find_blocks(const std::vector<Map<T>>& maps) {
  std::vector<Block> blocks;
  for (int64_t c = 0; c < static_cast<int64_t>(maps.size()); ++c) {
    if (blocks.empty() || blocks.back().count == kMaxOut || blocks.back().half != maps[c].half)
      blocks.push_back({c, 0, maps[c].half});
    ++blocks.back().count;
  }
  return blocks;
}

// Runs task(0) ... task(count - 1) on XLA's threads and on this thread. Returns when all are done.
inline void parallel(ffi::ThreadPool& pool, int64_t count,
                     const std::function<void(int64_t)>& task) {
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

}  // namespace msseg
