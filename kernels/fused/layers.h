// What the fused layers work on, as plain numbers and pointers; all tensors are float32 and contiguous.
#pragma once

#include <cstdint>

namespace mambair {

enum class Activation : int { none, silu, gelu };

// A linear layer, or some rows of its weight: out = activation(rows W^T + bias) [+ residual * scale].
struct Linear {
  const float* weights = nullptr;  // panels, see pack_linear
  int64_t inputs = 0, outputs = 0;
  Activation activation = Activation::none;
  float* out = nullptr;                // [tokens, outputs]
  const float* residual = nullptr;     // [tokens, outputs] or null
  const float* scale = nullptr;        // [outputs], with residual
};

// Tokens -> (layer norm) -> (times gate) -> linear layers.
struct TokenLayers {
  int64_t tokens = 0, channels = 0;
  const float* x = nullptr;            // [tokens, channels]
  const float* norm_weight = nullptr;  // [channels] or null: no layer norm
  const float* norm_bias = nullptr;
  float epsilon = 0.0f;
  const float* gate = nullptr;         // [tokens, channels] or null
  const Linear* linears = nullptr;
  int64_t linear_count = 0;
};

// Image -> depthwise 3x3 convolution, zeros outside -> activation -> (linear layer).
struct DepthwiseLayers {
  int64_t batch = 0, height = 0, width = 0, channels = 0, dilation = 1;
  const float* x = nullptr;        // [batch, height, width, channels]
  const float* weights = nullptr;  // 9 rows of taps and the bias, [10, channels]
  Activation activation = Activation::none;
  float* y = nullptr;              // [batch, height, width, channels], or null where only the linear layer is wanted
  const Linear* linear = nullptr;  // or null
};

// x * x_scale + y * y_scale, with a scale for each channel of each batch item, and one for each channel.
struct ScaledSum {
  int64_t tokens = 0, channels = 0;  // of one batch item, neighbours in memory
  const float* x = nullptr;
  const float* x_scale = nullptr;    // [batch, channels]
  const float* y = nullptr;
  const float* y_scale = nullptr;    // [channels]
  float* out = nullptr;
};

// Lanes of the panels of packed weights: as many full vectors as fit the tile in registers, evenly spread.
struct Panels {
  int64_t vectors, count;  // of the layer

  constexpr Panels(int64_t outputs, int64_t lanes, int64_t most)
      : vectors((outputs + lanes - 1) / lanes), count((vectors + most - 1) / most) {}
  constexpr int64_t first_vector(int64_t panel) const { return vectors * panel / count; }
};

// What one instruction set offers for them. Runs cover tokens (batch * tokens), or rows of images
// (batch * height).
struct FusedTable {
  int panel_vectors;
  int64_t (*token_scratch)(const TokenLayers&);  // floats needed by one running thread
  int64_t (*depthwise_scratch)(const DepthwiseLayers&);
  void (*token_layers)(const TokenLayers&, int64_t begin, int64_t end, float* scratch);
  void (*depthwise_layers)(const DepthwiseLayers&, int64_t begin, int64_t end, float* scratch);
  void (*scaled_sum)(const ScaledSum&, int64_t begin, int64_t end);
};

}  // namespace mambair
