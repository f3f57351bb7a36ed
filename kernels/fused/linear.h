// Products of a stripe of tokens with a weight, a tile of the result at a time in registers.
#pragma once

#include "layers.h"
#include "scan/math.h"
#include "simd/group.h"

namespace mambair {

inline constexpr int kStripe = 32;  // tokens that stay in first-level cache from one step to the next

// x * sigmoid(x)
template <class V>
[[gnu::always_inline]] inline V silu(V x) {
  return x * Softplus<V>(x).derivative();
}

// x (1 + erf(x / sqrt 2)) / 2; erfc by the rational form 7.1.26 of Abramowitz and Stegun (1964), error below 1.5e-7.
template <class V>
[[gnu::always_inline]] inline V gelu(V x) {
  const V size = V::min(V::all(9.0f), V::abs(x) * V::all(0.707106781186547524f));
  const V t = V::divide(V::all(1.0f), V::fma(size, V::all(0.3275911f), V::all(1.0f)));
  V p = V::fma(V::all(1.061405429f), t, V::all(-1.453152027f));
  p = V::fma(p, t, V::all(1.421413741f));
  p = V::fma(p, t, V::all(-0.284496736f));
  p = V::fma(p, t, V::all(0.254829592f));
  const V square = size * size;
  const V tail = p * t * exp2_product<Range::normal, V>(square, square, V::all(-kLog2E));  // erfc(size)
  const V half = x * V::all(0.5f);
  return V::fma(V::abs(half), V::all(1.0f) - tail, half);
}

template <class V>
struct Rowwise {
  using Several = Group<V, 4>;

  // In place, on neighbouring numbers.
  static void activate(Activation activation, float* numbers, int64_t count) {
    if (activation == Activation::silu) {
      each(numbers, count, [](auto x) __attribute__((always_inline)) { return silu(x); });
    } else if (activation == Activation::gelu) {
      each(numbers, count, [](auto x) __attribute__((always_inline)) { return gelu(x); });
    }
  }

 private:
  template <class Function>
  static void each(float* numbers, int64_t count, const Function& function) {
    int64_t i = 0;
    for (; i + 4 * V::lanes <= count; i += 4 * V::lanes) function(Several::load(numbers + i)).store(numbers + i);
    for (; i < count; i += V::lanes) {
      const int lanes = count - i < V::lanes ? static_cast<int>(count - i) : V::lanes;
      const Group<V, 1> result = function(Group<V, 1>{V::load_some(numbers + i, lanes)});
      result.value.store_some(numbers + i, lanes);
    }
  }
};

template <class V>
struct Product {
  static constexpr int rows = V::tile_rows;

  // out of tokens [first, first + count), whose inputs are `x`, rows `stride` apart. The order of every sum is that of
  // the inputs, whichever tile a token is in.
  static void run(const Linear& layer, const float* x, int64_t stride, int64_t first, int64_t count) {
    const Panels panels(layer.outputs, V::lanes, V::tile_vectors);
    const float* weights = layer.weights;
    for (int64_t panel = 0; panel < panels.count; ++panel) {
      const int64_t begin = panels.first_vector(panel), vectors = panels.first_vector(panel + 1) - begin;
      for (int64_t t = 0; t < count; t += rows) {
        const int present = count - t < rows ? static_cast<int>(count - t) : rows;
        const Place place{layer, first + t, begin * V::lanes, present};
        const float* from = x + t * stride;
        if (vectors == 3) {
          tile<3>(place, from, stride, weights);
        } else if (vectors == 2) {
          tile<2>(place, from, stride, weights);
        } else {
          tile<1>(place, from, stride, weights);
        }
      }
      weights += (layer.inputs + 1) * vectors * V::lanes;
    }
    Rowwise<V>::activate(layer.activation, layer.out + first * layer.outputs, count * layer.outputs);
  }

 private:
  struct Place {
    const Linear& layer;
    int64_t token, column;
    int present;
  };

  template <int vectors>
  static void tile(const Place& place, const float* x, int64_t stride, const float* weights) {
    const float* row[rows];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) row[r] = x + (r < place.present ? r : 0) * stride;
    V sums[rows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] = V::load(weights + v * V::lanes);
    }
    for (int64_t k = 0; k < place.layer.inputs; ++k) {
      weights += vectors * V::lanes;
      V columns[vectors];
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) columns[v] = V::load(weights + v * V::lanes);
#pragma GCC unroll 16
      for (int r = 0; r < rows; ++r) {
        const V number = V::all(row[r][k]);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) sums[r][v] = V::fma(number, columns[v], sums[r][v]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) {
      if (r >= place.present) break;
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) store(place, r, v, sums[r][v]);
    }
  }

  [[gnu::always_inline]] static inline void store(const Place& place, int r, int v, V sum) {
    const Linear& layer = place.layer;
    const int64_t column = place.column + v * V::lanes, at = (place.token + r) * layer.outputs + column;
    const int64_t left = layer.outputs - column;
    const int lanes = left < V::lanes ? static_cast<int>(left) : V::lanes;
    if (layer.residual != nullptr) {
      sum = V::fma(V::load_some(layer.residual + at, lanes), V::load_some(layer.scale + column, lanes), sum);
    }
    lanes == V::lanes ? sum.store(layer.out + at) : sum.store_some(layer.out + at, lanes);
  }
};

}  // namespace mambair
