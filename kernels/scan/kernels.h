// Gathers one instruction set's kernels.
#pragma once

#include "backward.h"
#include "forward.h"
#include "problem.h"

namespace mambair {

// Rounds a contiguous float32 buffer into a contiguous tensor.
template <class V>
void convert(const float* from, const View& to, int64_t count) {
  for (int64_t i = 0; i < count; i += V::lanes) {
    const int lanes = count - i < V::lanes ? static_cast<int>(count - i) : V::lanes;
    const V value = lanes == V::lanes ? V::load(from + i) : V::load_some(from + i, lanes);
    Tile<V>::store(to, i, value, lanes);
  }
}

// The unit in which benchmarks express the scan's cost: exponentials from first-level cache, nothing else.
template <class V>
float exponentials(int64_t thousands) {
  constexpr int count = 1024, accumulators = 4;
  alignas(64) float rates[count];
  for (int i = 0; i < count; ++i) rates[i] = -0.01f * static_cast<float>(i);
  V sums[accumulators];
  for (int j = 0; j < accumulators; ++j) sums[j] = V::all(0.0f);
  for (int64_t k = 0; k < thousands; ++k) {
    const V step = V::all(1e-6f * static_cast<float>(k));
    for (int i = 0; i < count; i += accumulators * V::lanes) {
#pragma GCC unroll 4
      for (int j = 0; j < accumulators; ++j) {
        sums[j] = sums[j] + exp2_product<Range::normal, V>(step, V::load(rates + i + j * V::lanes));
      }
    }
  }
  alignas(64) float lanes[V::lanes];
  (sums[0] + sums[1] + sums[2] + sums[3]).store(lanes);
  float total = 0.0f;
  for (int i = 0; i < V::lanes; ++i) total += lanes[i];
  return total;
}

template <class V>
constexpr KernelTable kernel_table() {
  return {V::name,       V::lanes,         Forward<V>::scratch, Backward<V>::scratch,
          Forward<V>::run, Backward<V>::run, convert<V>,          exponentials<V>};
}

}  // namespace mambair
