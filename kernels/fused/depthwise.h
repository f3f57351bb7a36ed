// A depthwise 3x3 convolution, its activation and a linear layer on the result, a few pixels of a row at a time.
#pragma once

#include "linear.h"

namespace mambair {

template <class V>
struct DepthwiseKernel {
  static int64_t scratch(const DepthwiseLayers& layers) { return kStripe * layers.channels; }

  // Rows of the images, those of all images counted together.
  static void run(const DepthwiseLayers& layers, int64_t begin, int64_t end, float* scratch) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t first = 0; first < layers.width; first += kStripe) {
        const int64_t left = layers.width - first, pixel = row * layers.width + first;
        const int64_t count = left < kStripe ? left : kStripe;
        float* const y = layers.y == nullptr ? scratch : layers.y + pixel * layers.channels;
        for (int64_t c = 0; c < layers.channels; c += V::lanes) convolve(layers, row, first, count, c, y + c);
        Rowwise<V>::activate(layers.activation, y, count * layers.channels);
        if (layers.linear != nullptr) Product<V>::run(*layers.linear, y, layers.channels, pixel, count);
      }
    }
  }

 private:
  // One vector of channels of pixels [first, first + count) of a row.
  static void convolve(const DepthwiseLayers& layers, int64_t row, int64_t first, int64_t count, int64_t channel,
                       float* y) {
    const int64_t channels = layers.channels, step = layers.dilation * channels, width = layers.width;
    const int64_t line = row % layers.height, across = layers.dilation * width * channels;
    const int lanes = channels - channel < V::lanes ? static_cast<int>(channels - channel) : V::lanes;
    const float* x = layers.x + (row * width + first) * channels + channel;
    V taps[10];
#pragma GCC unroll 10
    for (int i = 0; i < 10; ++i) taps[i] = V::load_some(layers.weights + i * channels + channel, lanes);
    const bool top = line < layers.dilation, bottom = line + layers.dilation >= layers.height;
    const auto at_edge = [&](int64_t column) {
      return top || bottom || column < layers.dilation || column + layers.dilation >= width;
    };
    for (int64_t i = 0; i < count; ++i) {
      const float* from = x + i * channels;
      V sum = taps[9];
      if (at_edge(first + i)) {
        for (int64_t j = 0; j < 9; ++j) {
          const int64_t down = (j / 3 - 1) * layers.dilation, right = (j % 3 - 1) * layers.dilation;
          if (line + down < 0 || line + down >= layers.height) continue;
          if (first + i + right < 0 || first + i + right >= width) continue;
          const V tap = V::load_some(layers.weights + j * channels + channel, lanes);
          sum = V::fma(V::load_some(from + (down * width + right) * channels, lanes), tap, sum);
        }
      } else if (lanes == V::lanes) {
#pragma GCC unroll 9
        for (int j = 0; j < 9; ++j) {
          sum = V::fma(V::load(from + (j / 3 - 1) * across + (j % 3 - 1) * step), taps[j], sum);
        }
      } else {
#pragma GCC unroll 9
        for (int j = 0; j < 9; ++j) {
          sum = V::fma(V::load_some(from + (j / 3 - 1) * across + (j % 3 - 1) * step, lanes), taps[j], sum);
        }
      }
      sum.store_some(y + i * channels, lanes);
    }
  }
};

}  // namespace mambair
