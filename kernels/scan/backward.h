// Backward scan of one task. Chunks of kStateChunk tokens are taken from the last to the first. For each channel block
// and state, spans of a chunk (as many tokens as first-level cache holds; the last first) are swept twice: forwards
// from the span's first state, keeping decays and states, then backwards with the gradient. Sums over channels
// (gradients of dt, B, C) are finished lane by lane for every block and added block after block, so their order never
// depends on how blocks are spread over tasks.
#pragma once

#include <cstdint>

#include "backward_sweep.h"
#include "math.h"
#include "problem.h"
#include "simd/group.h"
#include "tile.h"

namespace mambair {

template <class V>
class Backward {
 public:
  static int64_t scratch(const Problem& problem) {
    return kSpans * problem.state * W + 2 * row_count(problem) * M + Sweep::tile_count * kTileStride;
  }

  static void run(const Problem& problem, const BackwardOutputs& outputs, const Task& task, float* scratch) {
    Backward(problem, outputs, task, scratch).scan();
  }

 private:
  static constexpr int W = V::lanes;
  static constexpr int M = kStateChunk;  // tokens in a chunk
  static constexpr int U = V::lanes;     // tokens whose lane sums are finished together

  static constexpr int G = V::chains;    // exponentials under way together
  static constexpr int S = V::backward_tokens;  // tokens in a span
  static constexpr int kSpans = M / S;
  static constexpr int kAskedPerState = 3 * S / G;  // lines asked for while a span of one state is recomputed
  using Several = Group<V, G>;
  using Sweep = BackwardSweep<V>;
  using TileName = typename Sweep::TileName;
  template <int count>
  using Swept = typename Sweep::template Swept<count>;
  static constexpr int64_t kTileStride = Sweep::kTileStride;

  const Problem& p_;
  const BackwardOutputs& outputs_;
  const Task& task_;
  const WeightLayout layout_;
  const int direction_;
  float* const carry_;      // [blocks of the task, N, W]: gradient of the state behind the chunk
  float* const rows_;       // [R + 2N, M]: dt, B, C of the chunk, one row per number
  float* const grad_rows_;  // [R + 2N, M]: their gradients
  int group_ = -1;
  int64_t first_ = 0;       // token of the chunk
  int tokens_ = 0;          // of the chunk
  int tiles_in_chunk_ = 0;  // of U tokens that hold them
  int64_t asked_ = 0;       // of wanted_
  const char* wanted_[3 * M + kAskedPerState];
  Pixels<V, M> pixels_;
  Offsets<M> dt_offsets_, input_offsets_, output_offsets_, grad_dt_offsets_, grad_input_offsets_, grad_output_offsets_;
  Offsets<M> x_offsets_, delta_offsets_, gate_offsets_, grad_y_offsets_, grad_x_offsets_, grad_delta_offsets_,
      grad_gate_offsets_;

  float* const tiles_;
  float* const first_states_;  // [spans, N, W]: the state before each span
  float* tile(TileName name) const { return tiles_ + name * kTileStride; }

  Backward(const Problem& problem, const BackwardOutputs& outputs, const Task& task, float* scratch)
      : p_(problem),
        outputs_(outputs),
        task_(task),
        layout_(weight_layout(W, problem.state, problem.rank)),
        direction_(task.section.direction),
        carry_(carry_of<V>(problem, task)),
        rows_(scratch),
        grad_rows_(rows_ + row_count(problem) * M),
        tiles_(grad_rows_ + row_count(problem) * M),
        first_states_(tiles_ + Sweep::tile_count * kTileStride) {}

  template <Range range>
  struct Constant {
    static constexpr Range value = range;
  };

  static int64_t row_count(const Problem& problem) { return problem.rank + 2 * problem.state; }

  float* input_rows() const { return rows_ + p_.rank * M; }
  float* output_rows() const { return rows_ + (p_.rank + p_.state) * M; }
  float* grad_input_rows() const { return grad_rows_ + p_.rank * M; }
  float* grad_output_rows() const { return grad_rows_ + (p_.rank + p_.state) * M; }

  void scan() {
    const Section& section = task_.section;
    if (section.chunk_end == p_.chunks) {
      load_carry();
      clear_weight_gradients();
    }
    for (int64_t chunk = section.chunk_end - 1; chunk >= section.chunk_begin; --chunk) {
      first_ = chunk * M;
      tokens_ = static_cast<int>(p_.length() - first_ < M ? p_.length() - first_ : M);
      tiles_in_chunk_ = (tokens_ + U - 1) / U;
      Walk<V> walk(p_, task_.batch, static_cast<Direction>(p_.order[direction_]), first_);
      walk.next(pixels_, tokens_);
      set_offsets();
      scan_chunk(chunk);
    }
    if (section.chunk_begin == 0) store_carry();
  }

  void set_offsets() {
    const auto set = [&](Offsets<M>& offsets, const View& view) { offsets.set(view, task_.batch, pixels_); };
    set(dt_offsets_, p_.dt);
    set(input_offsets_, p_.input_matrix);
    set(output_offsets_, p_.output_matrix);
    set(grad_dt_offsets_, outputs_.dt);
    set(grad_input_offsets_, outputs_.input_matrix);
    set(grad_output_offsets_, outputs_.output_matrix);
    set(x_offsets_, p_.x);
    set(delta_offsets_, p_.delta);
    set(gate_offsets_, p_.gate);
    set(grad_y_offsets_, outputs_.grad_y);
    set(grad_x_offsets_, outputs_.x);
    set(grad_delta_offsets_, outputs_.delta);
    set(grad_gate_offsets_, outputs_.gate);
  }

  void scan_chunk(int64_t chunk) {
    group_ = -1;
    load_rows(p_.dt, dt_offsets_, direction_, p_.rank, rows_);
    begin_rows(outputs_.dt, grad_dt_offsets_, direction_, p_.rank, grad_rows_, !first_blocks());
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const ChannelBlock& block = p_.blocks[b];
      if (block.group != group_) change_group(b);
      p_.gate.data != nullptr ? scan_block<true>(b, chunk) : scan_block<false>(b, chunk);
    }
    store_rows(outputs_.dt, grad_dt_offsets_, direction_, p_.rank, grad_rows_);
    store_group();
  }

  bool first_blocks() const { return task_.block_begin == 0; }

  void change_group(int64_t b) {
    if (group_ >= 0) store_group();
    group_ = p_.blocks[b].group;
    const int slot = direction_ + group_;  // one of the two is always 0
    const bool begun = b > 0 && p_.blocks[b - 1].group == group_;  // by an earlier task
    load_rows(p_.input_matrix, input_offsets_, slot, p_.state, input_rows());
    load_rows(p_.output_matrix, output_offsets_, slot, p_.state, output_rows());
    begin_rows(outputs_.input_matrix, grad_input_offsets_, slot, p_.state, grad_input_rows(), begun);
    begin_rows(outputs_.output_matrix, grad_output_offsets_, slot, p_.state, grad_output_rows(), begun);
  }

  void store_group() const {
    const int slot = direction_ + group_;
    store_rows(outputs_.input_matrix, grad_input_offsets_, slot, p_.state, grad_input_rows());
    store_rows(outputs_.output_matrix, grad_output_offsets_, slot, p_.state, grad_output_rows());
  }

  void load_rows(const View& view, const Offsets<M>& offsets, int slot, int64_t count, float* rows) const {
    if (count > 0) Rows<V, M>::load(view, offsets.at, slot * view.slot, count, tokens_, rows);
  }

  // Gradients start at zero or at what earlier blocks left.
  void begin_rows(const View& view, const Offsets<M>& offsets, int slot, int64_t count, float* rows,
                  bool begun) const {
    if (begun) return load_rows(view, offsets, slot, count, rows);
    for (int64_t i = 0; i < count * M; ++i) rows[i] = 0.0f;
  }

  void store_rows(const View& view, const Offsets<M>& offsets, int slot, int64_t count, const float* rows) const {
    if (count > 0) Rows<V, M>::store(view, offsets.at, slot * view.slot, count, tokens_, rows);
  }

  template <bool gated>
  void scan_block(int64_t b, int64_t chunk) {
    const ChannelBlock& block = p_.blocks[b];
    const float* weights = p_.weights + (direction_ * p_.block_count + b) * layout_.size;
    float* grad_weights = weight_gradients(b);
    float* carry = carry_ + (b - task_.block_begin) * p_.state * W;
    const float* saved = p_.states + block.first + ((task_.batch * p_.directions + direction_) * p_.chunks + chunk) *
                                                       p_.state * p_.channels;
    const StepBounds<V> bounds = compute_steps(block, weights);
    load_grad_y<gated>(block, weights);
    want(b + 1 < task_.block_end ? p_.blocks[b + 1] : block);
    for (int64_t n = 0; n < p_.state; ++n) {
      V::load_some(saved + n * p_.channels, block.lanes).store(first_states_ + n * W);
      with_range(bounds, weights, n, [&](auto range, V rate) { find_first_states<decltype(range)::value>(rate, n); });
    }
    for (int span = (tokens_ - 1) / S; span >= 0; --span) {
      for (int64_t n = 0; n < p_.state;) {
        const bool pair = n + 1 < p_.state && same_range(bounds, weights, n);
        with_range(bounds, weights, n, [&](auto chosen, V) {
          constexpr Range range = decltype(chosen)::value;
          const float* rates = weights + layout_.decay;
          recompute_states<range, gated>(V::load(rates + n * W), n, span, Sweep::decay_tile);
          if (pair) recompute_states<range, gated>(V::load(rates + (n + 1) * W), n + 1, span, Sweep::second_decay_tile);
          float* grad_rates = grad_weights + layout_.decay;
          pair ? sweep_back<range, 2>(rates, n, span, carry, grad_rates)
               : sweep_back<range, 1>(rates, n, span, carry, grad_rates);
        });
        n += pair ? 2 : 1;
      }
    }
    if constexpr (gated) store_grad_gate(block);
    finish_tokens(block, weights, grad_weights);
  }

  // Lists the pixels of the next block, which are asked for a few at a time while the states run.
  void want(const ChannelBlock& next) {
    Tile<V>::list(p_.x, x_offsets_, next, wanted_);
    Tile<V>::list(outputs_.grad_y, grad_y_offsets_, next, wanted_ + M);
    Tile<V>::list(outputs_.x, grad_x_offsets_, next, wanted_ + 2 * M);
    for (int i = 0; i < kAskedPerState; ++i) wanted_[3 * M + i] = wanted_[0];
    for (asked_ = p_.state * kSpans * kAskedPerState; asked_ < 3 * M; ++asked_) __builtin_prefetch(wanted_[asked_]);
    asked_ = 0;
  }

  // Calls run(range, rate) for the decays of one state.
  template <class Run>
  void with_range(const StepBounds<V>& bounds, const float* weights, int64_t n, const Run& run) const {
    const V rate = V::load(weights + layout_.decay + n * W);
    switch (bounds.range(rate)) {
      case Range::near_one: return run(Constant<Range::near_one>(), rate);
      case Range::unit: return run(Constant<Range::unit>(), rate);
      case Range::square: return run(Constant<Range::square>(), rate);
      case Range::normal: return run(Constant<Range::normal>(), rate);
      case Range::any: return run(Constant<Range::any>(), rate);
    }
  }

  bool same_range(const StepBounds<V>& bounds, const float* weights, int64_t n) const {
    const float* rates = weights + layout_.decay + n * W;
    return bounds.range(V::load(rates)) == bounds.range(V::load(rates + W));
  }

  // Everything of the block's tokens that all states share. Rows of tokens that do not exist become zero.
  StepBounds<V> compute_steps(const ChannelBlock& block, const float* weights) {
    float *steps = tile(Sweep::step_tile), *drives = tile(Sweep::drive_tile);
    float *slopes = tile(Sweep::slope_tile), *xs = tile(Sweep::x_tile);
    Tile<V>::gather(p_.x, x_offsets_.at, block.first, block.lanes, tokens_, xs);
    if (p_.rank == 0) Tile<V>::gather(p_.delta, delta_offsets_.at, block.first, block.lanes, tokens_, steps);
    clear_missing(xs);
    clear_missing(steps);
    StepBounds<V> bounds;
    for (int first = 0; first < tiles_in_chunk_ * U; first += G) {
      const int64_t at = first * W;
      Several step = raw_steps(weights, first);
      Several slope = Several::all(1.0f);
      if (p_.softplus) {
        const Softplus<Several> softplus(step);
        step = softplus.value;
        slope = softplus.derivative();
      }
      bounds.include(step, p_.softplus);
      step.store(steps + at);
      slope.store(slopes + at);
      (step * Several::load(xs + at)).store(drives + at);
      Several::all(0.0f).store(tile(Sweep::grad_drive_tile) + at);
      Several::all(0.0f).store(tile(Sweep::grad_exponent_tile) + at);
    }
    clear_missing(steps);
    clear_missing(drives);
    return bounds;
  }

  // delta before softplus, of G tokens.
  Several raw_steps(const float* weights, int first) const {
    Several raw = Several::all(V::load(weights + layout_.bias));
    if (p_.rank == 0) return raw + Several::load(tile(Sweep::step_tile) + first * W);
    for (int64_t r = 0; r < p_.rank; ++r) {
      const Several weight = Several::all(V::load(weights + layout_.projection + r * W));
      raw = Several::fma(Several::all_of(rows_ + r * M + first, 1), weight, raw);
    }
    return raw;
  }

  void clear_missing(float* rows) const {
    for (int i = tokens_ * W; i < tiles_in_chunk_ * U * W; ++i) rows[i] = 0.0f;
  }

  template <bool gated>
  void load_grad_y(const ChannelBlock& block, const float* weights) {
    float* grads = tile(Sweep::grad_y_tile);
    Tile<V>::gather(outputs_.grad_y, grad_y_offsets_.at, block.first, block.lanes, tokens_, grads);
    if constexpr (gated) {
      const V skip = V::load(weights + layout_.skip);
      float* gates = tile(Sweep::ungated_tile);
      Tile<V>::gather(p_.gate, gate_offsets_.at, block.first, block.lanes, tokens_, gates);
      for (int t = 0; t < tokens_; ++t) {
        const V gate = V::load(gates + t * W);
        (V::load(grads + t * W) * gate * sigmoid<V>(gate)).store(grads + t * W);
        (skip * V::load(tile(Sweep::x_tile) + t * W)).store(gates + t * W);
      }
    }
    clear_missing(grads);
  }

  // The states before all spans but the first, for which first_states_ holds the saved one.
  template <Range range>
  void find_first_states(V rate, int64_t n) {
    const float *steps = tile(Sweep::step_tile), *drives = tile(Sweep::drive_tile), *input = input_rows() + n * M;
    V state = V::load(first_states_ + n * W);
    for (int first = 0; first < (tokens_ - 1) / S * S; first += G) {
      const Several decay = decays_of<range, Several>(steps + first * W, Several::all(rate));
#pragma GCC unroll 16
      for (int t = first; t < first + G; ++t) {
        state = decayed_plus<range, V>(state, decay[t - first], V::load(drives + t * W) * V::all(input[t]));
      }
      if ((first + G) % S == 0) state.store(first_states_ + ((first + G) / S * p_.state + n) * W);
    }
  }

  int span_end(int span) const {
    const int end = tiles_in_chunk_ * U;
    return end < (span + 1) * S ? end : (span + 1) * S;
  }

  // Fills the span's decays and the states before and behind its tokens.
  template <Range range, bool gated>
  void recompute_states(V rate, int64_t n, int span, TileName to) {
    const float *steps = tile(Sweep::step_tile), *drives = tile(Sweep::drive_tile);
    const float *input = input_rows() + n * M, *output = output_rows() + n * M;
    float *decays = tile(to), *states = decays + kTileStride, *ungated = tile(Sweep::ungated_tile);
    const int begin = span * S;
    V state = V::load(first_states_ + (span * p_.state + n) * W);
    state.store(states + begin * W);
    const char* const* wanted = wanted_ + asked_;
    asked_ = asked_ + kAskedPerState < 3 * M ? asked_ + kAskedPerState : 3 * M;
    for (int first = begin; first < span_end(span); first += G) {
      for (int i = 0; i < kAskedPerState * G / S; ++i) __builtin_prefetch(*wanted++);
      const Several decay = decays_of<range, Several>(steps + first * W, Several::all(rate));
      decay.store(decays + first * W);
#pragma GCC unroll 16
      for (int t = first; t < first + G; ++t) {
        state = decayed_plus<range, V>(state, decay[t - first], V::load(drives + t * W) * V::all(input[t]));
        state.store(states + (t + 1) * W);
        if constexpr (gated) V::fma(state, V::all(output[t]), V::load(ungated + t * W)).store(ungated + t * W);
      }
    }
  }

  // One or two states: two share loads, and neither waits for the other.
  template <Range range, int count>
  void sweep_back(const float* rates, int64_t n, int span, float* carry, float* grad_rates) {
    const int64_t second = n + count - 1;
    Swept<count> swept{V::load(rates + n * W),      V::load(carry + n * W),      V::all(0.0f),
                       V::load(rates + second * W), V::load(carry + second * W), V::all(0.0f)};
    for (int first = span_end(span) - U; first >= span * S; first -= U) {
      const auto sums = Sweep::template sweep_tokens_back<range, count, 0, U>(
          tiles_ + first * W, input_rows() + n * M + first, output_rows() + n * M + first, swept);
      float *input = grad_input_rows() + n * M + first, *output = grad_output_rows() + n * M + first;
      (V::load(input) + sums.input).store(input);
      (V::load(output) + sums.output).store(output);
      if constexpr (count == 2) {
        (V::load(input + M) + sums.second_input).store(input + M);
        (V::load(output + M) + sums.second_output).store(output + M);
      }
    }
    swept.grad.store(carry + n * W);
    (V::load(grad_rates + n * W) + swept.grad_rate).store(grad_rates + n * W);
    if constexpr (count == 2) {
      swept.second_grad.store(carry + second * W);
      (V::load(grad_rates + second * W) + swept.second_grad_rate).store(grad_rates + second * W);
    }
  }

  // From the sums over states to x, raw steps, dt and the weights that act on tokens.
  void finish_tokens(const ChannelBlock& block, const float* weights, float* grad_weights) {
    const V skip = V::load(weights + layout_.skip);
    V grad_skip = V::all(0.0f), grad_bias = V::all(0.0f);
    float *xs = tile(Sweep::x_tile), *slopes = tile(Sweep::slope_tile);
    for (int t = 0; t < tokens_; ++t) {
      const int64_t at = t * W;
      const V x = V::load(xs + at), grad_y = V::load(tile(Sweep::grad_y_tile) + at);
      const V grad_drive = V::load(tile(Sweep::grad_drive_tile) + at);
      const V grad_step = V::fma(x, grad_drive, V::all(kLn2) * V::load(tile(Sweep::grad_exponent_tile) + at));
      const V grad_raw = grad_step * V::load(slopes + at);
      grad_skip = V::fma(grad_y, x, grad_skip);
      grad_bias = grad_bias + grad_raw;
      grad_raw.store(slopes + at);
      V::fma(V::load(tile(Sweep::step_tile) + at), grad_drive, skip * grad_y).store(xs + at);
    }
    clear_missing(slopes);
    Tile<V>::scatter(outputs_.x, grad_x_offsets_.at, block.first, block.lanes, tokens_, task_.section, first_, xs);
    if (p_.rank == 0) {
      Tile<V>::scatter(outputs_.delta, grad_delta_offsets_.at, block.first, block.lanes, tokens_, false, slopes);
    }
    (V::load(grad_weights + layout_.skip) + grad_skip).store(grad_weights + layout_.skip);
    (V::load(grad_weights + layout_.bias) + grad_bias).store(grad_weights + layout_.bias);
    for (int64_t r = 0; r < p_.rank; ++r) {
      project_back(weights + layout_.projection + r * W, r, grad_weights + layout_.projection + r * W);
    }
  }

  void project_back(const float* weight_from, int64_t r, float* grad_weight_to) const {
    const V weight = V::load(weight_from);
    const float* grads = tile(Sweep::slope_tile);
    V grad_weight = V::all(0.0f);
    for (int first = 0; first < tiles_in_chunk_ * U; first += U) {
      float* to = grad_rows_ + r * M + first;
      const V sums =
          Sweep::template project_tokens_back<0, U>(grads + first * W, rows_ + r * M + first, weight, grad_weight);
      (V::load(to) + sums).store(to);
    }
    (V::load(grad_weight_to) + grad_weight).store(grad_weight_to);
  }

  // y = ungated * z / (1 + exp(-z))
  void store_grad_gate(const ChannelBlock& block) {
    float *gates = tile(Sweep::decay_tile), *grads = tile(Sweep::states_tile), *ungated = tile(Sweep::ungated_tile);
    Tile<V>::gather(p_.gate, gate_offsets_.at, block.first, block.lanes, tokens_, gates);
    Tile<V>::gather(outputs_.grad_y, grad_y_offsets_.at, block.first, block.lanes, tokens_, grads);
    for (int t = 0; t < tokens_; ++t) {
      const V gate = V::load(gates + t * W);
      const V open = sigmoid<V>(gate);
      const V slope = open * V::fma(gate, V::all(1.0f) - open, V::all(1.0f));
      (V::load(grads + t * W) * V::load(ungated + t * W) * slope).store(ungated + t * W);
    }
    Tile<V>::scatter(outputs_.gate, grad_gate_offsets_.at, block.first, block.lanes, tokens_, false, ungated);
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
