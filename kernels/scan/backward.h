// Backward scan of one task. Chunks of kStateChunk tokens are taken from the last to the first. For each channel block
// and state a chunk is swept twice: forwards from the saved state, keeping decays and states, then backwards with the
// gradient. Sums over channels (gradients of dt, B, C) are finished lane by lane for every block and added block
// after block, so their order never depends on how blocks are spread over tasks.
#pragma once

#include <cstdint>

#include "math.h"
#include "problem.h"
#include "simd/group.h"
#include "tile.h"

namespace mambair {

template <class V>
class Backward {
 public:
  static int64_t scratch(const Problem& problem, int64_t blocks) {
    return blocks * problem.state * W + 2 * row_count(problem) * M;
  }

  static void run(const Problem& problem, const BackwardOutputs& outputs, const Task& task, float* scratch) {
    Backward backward(problem, outputs, task, scratch);
    for (int k = task.direction_begin; k < task.direction_end; ++k) backward.scan(k);
  }

 private:
  static constexpr int W = V::lanes;
  static constexpr int M = kStateChunk;  // tokens in a chunk
  static constexpr int U = V::lanes;     // tokens whose lane sums are finished together

  static constexpr int G = V::chains;    // exponentials under way together
  using Several = Group<V, G>;

  const Problem& p_;
  const BackwardOutputs& outputs_;
  const Task& task_;
  const WeightLayout layout_;
  float* const carry_;      // [blocks of the task, N, W]: gradient of the state behind the chunk
  float* const rows_;       // [R + 2N, M]: dt, B, C of the chunk, one row per number
  float* const grad_rows_;  // [R + 2N, M]: their gradients
  int direction_ = 0;
  int group_ = -1;
  int tokens_ = 0;  // of the chunk
  int tiles_ = 0;   // of U tokens that hold them
  Pixels<V, M> pixels_;
  // One channel block of the chunk, [M, W] each
  alignas(64) float x_[M * W];
  alignas(64) float step_[M * W];
  alignas(64) float slope_[M * W];   // d delta / d raw step, 0 behind the last token
  alignas(64) float drive_[M * W];   // delta * x
  alignas(64) float grad_y_[M * W];
  alignas(64) float grad_drive_[M * W];
  alignas(64) float grad_exponent_[M * W];  // sum over states of dL/d(delta A) * A * log2(e)
  alignas(64) float ungated_[M * W];        // y before the gate, only with a gate
  // One state of it
  alignas(64) float decay_[M * W];
  alignas(64) float states_[(M + 1) * W];   // h before every token, and behind the last

  Backward(const Problem& problem, const BackwardOutputs& outputs, const Task& task, float* scratch)
      : p_(problem),
        outputs_(outputs),
        task_(task),
        layout_(weight_layout(W, problem.state, problem.rank)),
        carry_(scratch),
        rows_(carry_ + (task.block_end - task.block_begin) * problem.state * W),
        grad_rows_(rows_ + row_count(problem) * M) {}

  static int64_t row_count(const Problem& problem) { return problem.rank + 2 * problem.state; }

  float* input_rows() const { return rows_ + p_.rank * M; }
  float* output_rows() const { return rows_ + (p_.rank + p_.state) * M; }
  float* grad_input_rows() const { return grad_rows_ + p_.rank * M; }
  float* grad_output_rows() const { return grad_rows_ + (p_.rank + p_.state) * M; }

  void scan(int direction) {
    direction_ = direction;
    load_carry();
    clear_weight_gradients();
    for (int64_t chunk = p_.chunks - 1; chunk >= 0; --chunk) {
      const int64_t first = chunk * M;
      tokens_ = static_cast<int>(p_.length() - first < M ? p_.length() - first : M);
      tiles_ = (tokens_ + U - 1) / U;
      Walk<V> walk(p_, task_.batch, static_cast<Direction>(p_.order[direction]), first);
      walk.next(pixels_, tokens_);
      scan_chunk(chunk);
    }
    store_carry();
  }

  void scan_chunk(int64_t chunk) {
    group_ = -1;
    load_rows(p_.dt, outputs_.dt, direction_, p_.rank, rows_, grad_rows_, !first_blocks());
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const ChannelBlock& block = p_.blocks[b];
      if (block.group != group_) change_group(b);
      p_.gate.data != nullptr ? scan_block<true>(b, chunk) : scan_block<false>(b, chunk);
    }
    store_rows(outputs_.dt, direction_, p_.rank, grad_rows_);
    store_group();
  }

  bool first_blocks() const { return task_.block_begin == 0; }

  void change_group(int64_t b) {
    if (group_ >= 0) store_group();
    group_ = p_.blocks[b].group;
    const int slot = direction_ + group_;  // one of the two is always 0
    const bool begun = b > 0 && p_.blocks[b - 1].group == group_;  // by an earlier task
    load_rows(p_.input_matrix, outputs_.input_matrix, slot, p_.state, input_rows(), grad_input_rows(), begun);
    load_rows(p_.output_matrix, outputs_.output_matrix, slot, p_.state, output_rows(), grad_output_rows(), begun);
  }

  void store_group() const {
    const int slot = direction_ + group_;
    store_rows(outputs_.input_matrix, slot, p_.state, grad_input_rows());
    store_rows(outputs_.output_matrix, slot, p_.state, grad_output_rows());
  }

  // Numbers go from pixels to rows (transposed); their gradient starts at zero or at what earlier blocks left.
  void load_rows(const View& from, const View& grad, int slot, int64_t count, float* rows, float* grad_rows,
                 bool begun) const {
    if (count == 0) return;
    transpose_in(from, slot, count, rows);
    if (begun) {
      transpose_in(grad, slot, count, grad_rows);
    } else {
      for (int64_t i = 0; i < count * M; ++i) grad_rows[i] = 0.0f;
    }
  }

  void transpose_in(const View& view, int slot, int64_t count, float* rows) const {
    alignas(64) float line[W];
    const int64_t base = task_.batch * view.batch + slot * view.slot;
    for (int t = 0; t < tokens_; ++t) {
      const int64_t offset = base + pixels_.offset(view, t);
      for (int64_t j = 0; j < count; j += W) {
        const int lanes = count - j < W ? static_cast<int>(count - j) : W;
        Tile<V>::load(view, offset + j, lanes).store(line);
        for (int i = 0; i < lanes; ++i) rows[(j + i) * M + t] = line[i];
      }
    }
    for (int64_t j = 0; j < count; ++j) {
      for (int t = tokens_; t < M; ++t) rows[j * M + t] = 0.0f;
    }
  }

  void store_rows(const View& view, int slot, int64_t count, const float* rows) const {
    alignas(64) float line[W];
    const int64_t base = task_.batch * view.batch + slot * view.slot;
    for (int t = 0; t < tokens_; ++t) {
      const int64_t offset = base + pixels_.offset(view, t);
      for (int64_t j = 0; j < count; j += W) {
        const int lanes = count - j < W ? static_cast<int>(count - j) : W;
        for (int i = 0; i < lanes; ++i) line[i] = rows[(j + i) * M + t];
        Tile<V>::store(view, offset + j, V::load(line), lanes);
      }
    }
  }

  template <bool gated>
  void scan_block(int64_t b, int64_t chunk) {
    const ChannelBlock& block = p_.blocks[b];
    const float* weights = p_.weights + (direction_ * p_.block_count + b) * layout_.size;
    float* grad_weights = weight_gradients(b);
    float* carry = carry_ + (b - task_.block_begin) * p_.state * W;
    const StepBounds<V> bounds = compute_steps(block, weights);
    load_grad_y<gated>(block, weights);
    const float* saved = p_.states + ((task_.batch * p_.directions + direction_) * p_.chunks + chunk) *
                                         p_.state * p_.channels + block.first;
    for (int64_t n = 0; n < p_.state; ++n) {
      const V rate = V::load(weights + layout_.decay + n * W);
      V::load_some(saved + n * p_.channels, block.lanes).store(states_);
      float* to_carry = carry + n * W;
      float* grad_rate = grad_weights + layout_.decay + n * W;
      switch (bounds.range(rate)) {
        case Range::near_one: sweep<Range::near_one, gated>(rate, n, to_carry, grad_rate); break;
        case Range::unit: sweep<Range::unit, gated>(rate, n, to_carry, grad_rate); break;
        case Range::normal: sweep<Range::normal, gated>(rate, n, to_carry, grad_rate); break;
        case Range::any: sweep<Range::any, gated>(rate, n, to_carry, grad_rate); break;
      }
    }
    if constexpr (gated) store_grad_gate(block);
    finish_tokens(block, weights, grad_weights);
  }

  StepBounds<V> compute_steps(const ChannelBlock& block, const float* weights) {
    const V bias = V::load(weights + layout_.bias);
    StepBounds<V> bounds;
    for (int t = 0; t < tiles_ * U; t += U) {
      V raw[U];
      for (int i = 0; i < U; ++i) raw[i] = bias;
      for (int64_t r = 0; r < p_.rank; ++r) {
        const V weight = V::load(weights + layout_.projection + r * W);
#pragma GCC unroll 16
        for (int i = 0; i < U; ++i) raw[i] = V::fma(V::all(rows_[r * M + t + i]), weight, raw[i]);
      }
      for (int i = 0; i < U; ++i) bounds.include(start_token(block, t + i, raw[i]));
    }
    return bounds;
  }

  // Everything of one token that all states share; returns delta.
  V start_token(const ChannelBlock& block, int t, V raw) {
    V step = V::all(0.0f), slope = step, x = step;
    if (t < tokens_) {
      if (p_.rank == 0) raw = raw + load_pixel(p_.delta, block, t);
      step = raw;
      slope = V::all(1.0f);
      if (p_.softplus) {
        const Softplus<V> softplus(raw);
        step = softplus.value;
        slope = softplus.derivative();
      }
      x = load_pixel(p_.x, block, t);
    }
    x.store(x_ + t * W);
    step.store(step_ + t * W);
    slope.store(slope_ + t * W);
    (step * x).store(drive_ + t * W);
    V::all(0.0f).store(grad_drive_ + t * W);
    V::all(0.0f).store(grad_exponent_ + t * W);
    return step;
  }

  template <bool gated>
  void load_grad_y(const ChannelBlock& block, const float* weights) {
    for (int t = 0; t < tiles_ * U; ++t) {
      V grad = t < tokens_ ? load_pixel(outputs_.grad_y, block, t) : V::all(0.0f);
      if constexpr (gated) {
        const V gate = t < tokens_ ? load_pixel(p_.gate, block, t) : V::all(0.0f);
        grad = grad * gate * sigmoid<V>(gate);
        (V::load(weights + layout_.skip) * V::load(x_ + t * W)).store(ungated_ + t * W);
      }
      grad.store(grad_y_ + t * W);
    }
  }

  V load_pixel(const View& view, const ChannelBlock& block, int token) const {
    return Tile<V>::load(view, task_.batch * view.batch + pixels_.offset(view, token) + block.first, block.lanes);
  }

  template <Range range, bool gated>
  void sweep(V rate, int64_t n, float* carry, float* grad_rate) {
    advance<range, gated>(rate, n);
    sweep_back<range>(rate, n, carry, grad_rate);
  }

  // states_[0] is the state before the chunk; fills decay_ and the rest of states_.
  template <Range range, bool gated>
  void advance(V rate, int64_t n) {
    const float* input = input_rows() + n * M;
    const float* output = output_rows() + n * M;
    V state = V::load(states_);
    for (int tile = 0; tile < tiles_ * U; tile += U) {
#pragma GCC unroll 4
      for (int first = 0; first < U; first += G) {
        const Several decay = decays_of<range, Several>(step_ + (tile + first) * W, Several::all(rate));
#pragma GCC unroll 16
        for (int i = 0; i < G; ++i) {
          const int t = tile + first + i;
          state = decayed_plus<range, V>(state, decay[i], V::load(drive_ + t * W) * V::all(input[t]));
          decay[i].store(decay_ + t * W);
          state.store(states_ + (t + 1) * W);
          if constexpr (gated) V::fma(state, V::all(output[t]), V::load(ungated_ + t * W)).store(ungated_ + t * W);
        }
      }
    }
  }

  template <Range range>
  void sweep_back(V rate, int64_t n, float* carry, float* grad_rate) {
    const float* input = input_rows() + n * M;
    const float* output = output_rows() + n * M;
    V grad_state = V::load(carry);
    V grad_rate_chunk = V::all(0.0f);
    for (int tile = (tiles_ - 1) * U; tile >= 0; tile -= U) {
      V to_input[U], to_output[U];
      V state = V::load(states_ + (tile + U) * W);
#pragma GCC unroll 16
      for (int i = U - 1; i >= 0; --i) {
        const int t = tile + i;
        const V grad_y = V::load(grad_y_ + t * W);
        grad_state = V::fma(grad_y, V::all(output[t]), grad_state);
        to_output[i] = state * grad_y;
        to_input[i] = grad_state * V::load(drive_ + t * W);
        V::fma(grad_state, V::all(input[t]), V::load(grad_drive_ + t * W)).store(grad_drive_ + t * W);
        grad_state = decayed<range, V>(grad_state, V::load(decay_ + t * W));
        state = V::load(states_ + t * W);
        const V grad_product = grad_state * state;  // of delta * A
        V::fma(grad_product, rate, V::load(grad_exponent_ + t * W)).store(grad_exponent_ + t * W);
        grad_rate_chunk = V::fma(grad_product, V::load(step_ + t * W), grad_rate_chunk);
      }
      add_sums(to_input, grad_input_rows() + n * M + tile);
      add_sums(to_output, grad_output_rows() + n * M + tile);
    }
    grad_state.store(carry);
    (V::load(grad_rate) + grad_rate_chunk).store(grad_rate);
  }

  static void add_sums(const V* values, float* to) { (V::load(to) + V::sums(values)).store(to); }

  // From the sums over states to x, raw steps, dt and the weights that act on tokens.
  void finish_tokens(const ChannelBlock& block, const float* weights, float* grad_weights) {
    const V skip = V::load(weights + layout_.skip);
    V grad_skip = V::all(0.0f), grad_bias = V::all(0.0f);
    for (int t = 0; t < tiles_ * U; ++t) {
      const V step = V::load(step_ + t * W), x = V::load(x_ + t * W), grad_y = V::load(grad_y_ + t * W);
      const V grad_drive = V::load(grad_drive_ + t * W);
      const V grad_step = V::fma(x, grad_drive, V::all(kLn2) * V::load(grad_exponent_ + t * W));
      // Behind the last token the slope is 0, but 0 * inf would not be.
      const V grad_raw = t < tokens_ ? grad_step * V::load(slope_ + t * W) : V::all(0.0f);
      grad_skip = V::fma(grad_y, x, grad_skip);
      grad_bias = grad_bias + grad_raw;
      grad_raw.store(slope_ + t * W);  // for the projection below
      if (t < tokens_) {
        store_grad_x(block, t, V::fma(step, grad_drive, skip * grad_y));
        if (p_.rank == 0) store_pixel(outputs_.delta, block, t, grad_raw);
      }
    }
    (V::load(grad_weights + layout_.skip) + grad_skip).store(grad_weights + layout_.skip);
    (V::load(grad_weights + layout_.bias) + grad_bias).store(grad_weights + layout_.bias);
    for (int64_t r = 0; r < p_.rank; ++r) {
      project_back(weights + layout_.projection + r * W, r, grad_weights + layout_.projection + r * W);
    }
  }

  void project_back(const float* weight_from, int64_t r, float* grad_weight_to) {
    const V weight = V::load(weight_from);
    V grad_weight = V::all(0.0f);
    for (int tile = 0; tile < tiles_ * U; tile += U) {
      V to_dt[U];
#pragma GCC unroll 16
      for (int i = 0; i < U; ++i) {
        const V grad_raw = V::load(slope_ + (tile + i) * W);
        grad_weight = V::fma(grad_raw, V::all(rows_[r * M + tile + i]), grad_weight);
        to_dt[i] = grad_raw * weight;
      }
      add_sums(to_dt, grad_rows_ + r * M + tile);
    }
    (V::load(grad_weight_to) + grad_weight).store(grad_weight_to);
  }

  void store_grad_x(const ChannelBlock& block, int t, V grad) const {
    const View& to = outputs_.x;
    const int64_t offset = task_.batch * to.batch + pixels_.offset(to, t) + block.first;
    if (direction_ > 0) grad = Tile<V>::load(to, offset, block.lanes) + grad;
    Tile<V>::store(to, offset, grad, block.lanes);
  }

  void store_pixel(const View& to, const ChannelBlock& block, int t, V value) const {
    Tile<V>::store(to, task_.batch * to.batch + pixels_.offset(to, t) + block.first, value, block.lanes);
  }

  // y = ungated * z / (1 + exp(-z))
  void store_grad_gate(const ChannelBlock& block) const {
    for (int t = 0; t < tokens_; ++t) {
      const V gate = load_pixel(p_.gate, block, t);
      const V open = sigmoid<V>(gate);
      const V slope = open * V::fma(gate, V::all(1.0f) - open, V::all(1.0f));
      store_pixel(outputs_.gate, block, t, load_pixel(outputs_.grad_y, block, t) * V::load(ungated_ + t * W) * slope);
    }
  }

  float* weight_gradients(int64_t block) const {
    return outputs_.weights +
           ((task_.batch * p_.directions + direction_) * p_.block_count + block) * layout_.size;
  }

  void clear_weight_gradients() const {
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      float* to = weight_gradients(b);
      for (int64_t i = 0; i < layout_.size; ++i) to[i] = 0.0f;
    }
  }

  void load_carry() const {
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      float* carry = carry_ + (b - task_.block_begin) * p_.state * W;
      for (int64_t i = 0; i < p_.state * W; ++i) carry[i] = 0.0f;
      if (outputs_.grad_last_state == nullptr) continue;
      const ChannelBlock& block = p_.blocks[b];
      const float* from = outputs_.grad_last_state + (task_.batch * p_.channels + block.first) * p_.state;
      for (int lane = 0; lane < block.lanes; ++lane) {
        for (int64_t n = 0; n < p_.state; ++n) carry[n * W + lane] = from[lane * p_.state + n];
      }
    }
  }

  void store_carry() const {
    if (outputs_.initial_state == nullptr) return;
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const float* carry = carry_ + (b - task_.block_begin) * p_.state * W;
      const ChannelBlock& block = p_.blocks[b];
      float* to = outputs_.initial_state + (task_.batch * p_.channels + block.first) * p_.state;
      for (int lane = 0; lane < block.lanes; ++lane) {
        for (int64_t n = 0; n < p_.state; ++n) to[lane * p_.state + n] = carry[n * W + lane];
      }
    }
  }
};

}  // namespace mambair
