// Gathers one instruction set's kernels.
#pragma once

#include "backward.h"
#include "forward.h"
#include "fused/depthwise.h"
#include "fused/tokens.h"
#include "problem.h"
#include "simd/group.h"

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
  constexpr int count = 1024, chains = V::chains;
  using Several = Group<V, chains>;
  alignas(64) float rates[count];
  for (int i = 0; i < count; ++i) rates[i] = -0.01f * static_cast<float>(i);
  Several sums = Several::all(0.0f);
  for (int64_t k = 0; k < thousands; ++k) {
    const Several step = Several::all(1e-6f * static_cast<float>(k));
    for (int i = 0; i < count; i += chains * V::lanes) {
      sums = sums + exp2_product<Range::normal, Several>(Several::load_again(rates + i), Several::load_again(rates + i),
                                                       step);
    }
  }
  alignas(64) float lanes[V::lanes];
  V sum = V::all(0.0f);
  for (int j = 0; j < chains; ++j) sum = sum + sums[j];
  sum.store(lanes);
  float total = 0.0f;
  for (int i = 0; i < V::lanes; ++i) total += lanes[i];
  return total;
}

template <class V>
constexpr KernelTable kernel_table() {
  return {V::name,       V::lanes,         Forward<V>::scratch, Backward<V>::scratch,
          Forward<V>::run, Backward<V>::run, convert<V>,          exponentials<V>,
          {V::tile_vectors, TokenKernel<V>::scratch, DepthwiseKernel<V>::scratch, TokenKernel<V>::run,
           DepthwiseKernel<V>::run, scaled_sum<V>}};
}

}  // namespace mambair
