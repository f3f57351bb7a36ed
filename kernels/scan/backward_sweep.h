// The innermost loops of the backward scan: states swept from a token to the one before it, and sums over the lanes
// of as many tokens as there are lanes.
#pragma once

#include <cstdint>

#include "math.h"
#include "problem.h"

namespace mambair {

template <class V>
struct BackwardSweep {
  static constexpr int W = V::lanes;
  static constexpr int M = kStateChunk;  // tokens in a chunk

  // Tiles [M, W] of one channel block. They are a little more than their size apart, in this order, so that a load
  // that follows a store soon never has the same address modulo 4096, which would make it wait.
  enum TileName : int {
    decay_tile,          // of the state and span at hand
    states_tile,         // h before every token of the span and behind the last
    second_decay_tile,   // the same of the state after it, when two are swept together
    second_states_tile,
    ungated_tile,        // y before the gate, only with a gate
    step_tile,           // delta
    drive_tile,          // delta * x
    grad_y_tile,         // with a gate: of y before the gate
    grad_drive_tile,
    x_tile,
    slope_tile,          // d delta / d raw step; then the gradient of the raw step
    grad_exponent_tile,  // sum over states of dL/d(delta A) * A * log2(e)
    tile_count
  };
  static constexpr int64_t kTileStride = (M + 4) * W;

  // One or two states on their way back.
  template <int count>
  struct Swept {
    V rate, grad, grad_rate;  // log2(e) A, gradient of the state, gradient of A summed over tokens
    V second_rate, second_grad, second_grad_rate;
  };

  // Summands of the gradients of B and C, over channels, on their way through V::merge.
  struct LaneSums {
    V input, output, second_input, second_output;
  };

  // `size` tokens from `first` on, the last of them first. `at` is token 0 in the first tile; all tiles lie at fixed
  // distances. A recursion, so that the summands are merged as soon as two of them are there.
  template <Range range, int count, int first, int size>
  [[gnu::always_inline]] static inline LaneSums sweep_tokens_back(float* at, const float* input, const float* output,
                                                           Swept<count>& swept) {
    if constexpr (size == 1) {
      return sweep_token_back<range, count>(at + first * W, input + first, output + first, swept);
    } else {
      constexpr int half = size / 2;
      const LaneSums high = sweep_tokens_back<range, count, first + half, half>(at, input, output, swept);
      const LaneSums low = sweep_tokens_back<range, count, first, half>(at, input, output, swept);
      LaneSums sums;
      sums.input = V::template merge<size>(low.input, high.input);
      sums.output = V::template merge<size>(low.output, high.output);
      if constexpr (count == 2) {
        sums.second_input = V::template merge<size>(low.second_input, high.second_input);
        sums.second_output = V::template merge<size>(low.second_output, high.second_output);
      }
      return sums;
    }
  }

  template <Range range, int count>
  [[gnu::always_inline]] static inline LaneSums sweep_token_back(float* token, const float* input, const float* output,
                                                          Swept<count>& swept) {
    const V grad_y = V::load(token + grad_y_tile * kTileStride), step = V::load(token + step_tile * kTileStride);
    const V drive = V::load(token + drive_tile * kTileStride);
    V grad_drive = V::load(token + grad_drive_tile * kTileStride);
    V grad_exponent = V::load(token + grad_exponent_tile * kTileStride);
    LaneSums sums;
    swept.grad = V::fma(grad_y, V::all(output[0]), swept.grad);
    sums.output = V::load(token + states_tile * kTileStride + W) * grad_y;
    sums.input = swept.grad * drive;
    grad_drive = V::fma(swept.grad, V::all(input[0]), grad_drive);
    swept.grad = decayed<range, V>(swept.grad, V::load(token + decay_tile * kTileStride));
    const V grad_product = swept.grad * V::load(token + states_tile * kTileStride);  // of delta * A
    grad_exponent = V::fma(grad_product, swept.rate, grad_exponent);
    swept.grad_rate = V::fma(grad_product, step, swept.grad_rate);
    if constexpr (count == 2) {
      swept.second_grad = V::fma(grad_y, V::all(output[M]), swept.second_grad);
      sums.second_output = V::load(token + second_states_tile * kTileStride + W) * grad_y;
      sums.second_input = swept.second_grad * drive;
      grad_drive = V::fma(swept.second_grad, V::all(input[M]), grad_drive);
      swept.second_grad = decayed<range, V>(swept.second_grad, V::load(token + second_decay_tile * kTileStride));
      const V second_product = swept.second_grad * V::load(token + second_states_tile * kTileStride);
      grad_exponent = V::fma(second_product, swept.second_rate, grad_exponent);
      swept.second_grad_rate = V::fma(second_product, step, swept.second_grad_rate);
    }
    grad_drive.store(token + grad_drive_tile * kTileStride);
    grad_exponent.store(token + grad_exponent_tile * kTileStride);
    return sums;
  }

  // Tokens of the gradient of the raw step, back through the projection by one column of dt_weight.
  template <int first, int size>
  [[gnu::always_inline]] static inline V project_tokens_back(const float* grads, const float* dt, V weight,
                                                             V& grad_weight) {
    if constexpr (size == 1) {
      const V grad_raw = V::load(grads + first * W);
      grad_weight = V::fma(grad_raw, V::all(dt[first]), grad_weight);
      return grad_raw * weight;
    } else {
      const V low = project_tokens_back<first, size / 2>(grads, dt, weight, grad_weight);
      const V high = project_tokens_back<first + size / 2, size / 2>(grads, dt, weight, grad_weight);
      return V::template merge<size>(low, high);
    }
  }
};

}  // namespace mambair
