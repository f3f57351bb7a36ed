// Layer norm, gate and linear layers of a token in one pass.
#pragma once

#include "linear.h"

namespace mambair {

template <class V>
struct TokenKernel {
  static int64_t padded(int64_t channels) { return (channels + V::lanes - 1) / V::lanes * V::lanes; }
  static int64_t scratch(const TokenLayers& layers) { return kStripe * padded(layers.channels); }

  static void run(const TokenLayers& layers, int64_t begin, int64_t end, float* scratch) {
    const int64_t stride = padded(layers.channels);
    const bool prepared = layers.norm_weight != nullptr || layers.gate != nullptr;
    for (int64_t first = begin; first < end; first += kStripe) {
      const int64_t count = end - first < kStripe ? end - first : kStripe;
      const float* x = layers.x + first * layers.channels;
      if (prepared) {
        for (int64_t t = 0; t < count; ++t) prepare(layers, first + t, scratch + t * stride);
      }
      for (int64_t i = 0; i < layers.linear_count; ++i) {
        Product<V>::run(layers.linears[i], prepared ? scratch : x, prepared ? stride : layers.channels, first, count);
      }
    }
  }

 private:
  // One token: its numbers are read three times, from first-level cache.
  static void prepare(const TokenLayers& layers, int64_t token, float* to) {
    const int64_t channels = layers.channels, whole = channels / V::lanes * V::lanes;
    const int rest = static_cast<int>(channels - whole);
    const float* x = layers.x + token * channels;
    const float* gate = layers.gate == nullptr ? nullptr : layers.gate + token * channels;
    float mean = 0.0f, scale = 1.0f;
    if (layers.norm_weight != nullptr) {
      V sum = V::all(0.0f);
      for (int64_t i = 0; i < whole; i += V::lanes) sum = sum + V::load(x + i);
      if (rest > 0) sum = sum + V::load_some(x + whole, rest);
      mean = total(sum) / static_cast<float>(channels);
      const V middle = V::all(mean);
      sum = V::all(0.0f);
      for (int64_t i = 0; i < whole; i += V::lanes) {
        const V distance = V::load(x + i) - middle;
        sum = V::fma(distance, distance, sum);
      }
      if (rest > 0) {
        float present[V::lanes];
        (V::load_some(x + whole, rest) - middle).store(present);
        const V distance = V::load_some(present, rest);
        sum = V::fma(distance, distance, sum);
      }
      scale = 1.0f / __builtin_sqrtf(total(sum) / static_cast<float>(channels) + layers.epsilon);
    }
    const auto step = [&](int64_t i, const auto& load) __attribute__((always_inline)) {
      V value = load(x + i);
      if (layers.norm_weight != nullptr) {
        value = (value - V::all(mean)) * V::all(scale);
        value = V::fma(value, load(layers.norm_weight + i), load(layers.norm_bias + i));
      }
      if (gate != nullptr) value = value * load(gate + i);
      value.store(to + i);
    };
    for (int64_t i = 0; i < whole; i += V::lanes) step(i, [](const float* from) { return V::load(from); });
    if (rest > 0) step(whole, [&](const float* from) { return V::load_some(from, rest); });
  }

  static float total(V sum) {
    float lanes[V::lanes];
    sum.store(lanes);
#pragma GCC unroll 4
    for (int half = V::lanes / 2; half > 0; half /= 2) {
      for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    return lanes[0];
  }
};

template <class V>
void scaled_sum(const ScaledSum& sum, int64_t begin, int64_t end) {
  for (int64_t token = begin; token < end; ++token) {
    const float* x_scale = sum.x_scale + token / sum.tokens * sum.channels;
    const int64_t first = token * sum.channels;
    for (int64_t c = 0; c < sum.channels; c += V::lanes) {
      const int lanes = sum.channels - c < V::lanes ? static_cast<int>(sum.channels - c) : V::lanes;
      const V scaled = V::load_some(sum.x + first + c, lanes) * V::load_some(x_scale + c, lanes);
      V::fma(V::load_some(sum.y + first + c, lanes), V::load_some(sum.y_scale + c, lanes), scaled)
          .store_some(sum.out + first + c, lanes);
    }
  }
}

}  // namespace mambair
