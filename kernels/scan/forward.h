// Forward scan of one task. Tokens are taken in tiles of V::forward_tokens; for every channel block of the task the
// tile's step sizes are computed, then the states run one after another over the tile while the tile's outputs stay
// in registers. h lives in first-level cache between tiles.
#pragma once

#include <cstdint>

#include "math.h"
#include "problem.h"
#include "simd/group.h"
#include "tile.h"

namespace mambair {

template <class V>
class Forward {
 public:
  static int64_t scratch(const Problem& problem, int64_t blocks) {
    return blocks * problem.state * W + T * (whole_vectors<V>(problem.rank) + 2 * row_stride(problem));
  }

  static void run(const Problem& problem, const ForwardOutputs& outputs, const Task& task, float* scratch) {
    Forward forward(problem, outputs, task, scratch);
    for (int k = task.direction_begin; k < task.direction_end; ++k) forward.scan(k);
  }

 private:
  static constexpr int W = V::lanes;
  static constexpr int T = V::forward_tokens;
  static constexpr int G = V::chains;  // exponentials under way together
  using Several = Group<V, G>;
  static constexpr int64_t kShortState = 32;  // states up to here use rows of a fixed length

  const Problem& p_;
  const ForwardOutputs& outputs_;
  const Task& task_;
  const WeightLayout layout_;
  const int64_t row_stride_;
  float* const h_;           // [blocks of the task, N, W]
  float* const dt_rows_;     // [T, whole vectors of R]
  float* const input_rows_;  // [T, row stride]: B
  float* const output_rows_; // [T, row stride]: C
  int direction_ = 0;
  int group_ = -1;           // whose B and C the rows hold
  Offsets<T> x_offsets_, y_offsets_, delta_offsets_, gate_offsets_;
  alignas(64) float step_[T * W];   // delta
  alignas(64) float drive_[T * W];  // delta * x
  alignas(64) float y_[T * W];      // x, then y

  Forward(const Problem& problem, const ForwardOutputs& outputs, const Task& task, float* scratch)
      : p_(problem),
        outputs_(outputs),
        task_(task),
        layout_(weight_layout(W, problem.state, problem.rank)),
        row_stride_(row_stride(problem)),
        h_(scratch),
        dt_rows_(h_ + (task.block_end - task.block_begin) * problem.state * W),
        input_rows_(dt_rows_ + T * whole_vectors<V>(problem.rank)),
        output_rows_(input_rows_ + T * row_stride_) {
    for (int i = 0; i < T * W; ++i) step_[i] = y_[i] = 0.0f;
  }

  static int64_t row_stride(const Problem& problem) {
    return problem.state <= kShortState ? kShortState : whole_vectors<V>(problem.state);
  }

  void scan(int direction) {
    direction_ = direction;
    const Direction order = static_cast<Direction>(p_.order[direction]);
    const bool far_apart = order == Direction::columns || order == Direction::reversed_columns || p_.index != nullptr;
    load_initial_state();
    Walk<V> walk(p_, task_.batch, order, 0);
    Pixels<V, T> pixels, upcoming;
    int tokens = tile_length(0);
    walk.next(pixels, tokens);
    for (int64_t first = 0; first < p_.length(); first += T) {
      const int next_tokens = tile_length(first + T);
      walk.next(upcoming, next_tokens);
      if (far_apart) prefetch(upcoming, next_tokens);
      if (p_.states != nullptr && first % kStateChunk == 0) save_states(first / kStateChunk);
      scan_tile(pixels, tokens);
      pixels = upcoming;
      tokens = next_tokens;
    }
    if (outputs_.last_state != nullptr) store_last_state();
  }

  int tile_length(int64_t first) const {
    const int64_t left = p_.length() - first;
    return left >= T ? T : left > 0 ? static_cast<int>(left) : 0;
  }

  void scan_tile(const Pixels<V, T>& pixels, int tokens) {
    group_ = -1;
    x_offsets_.set(p_.x, task_.batch, 0, pixels, tokens);
    y_offsets_.set(outputs_.y, task_.batch, 0, pixels, tokens);
    if (p_.delta.data != nullptr) delta_offsets_.set(p_.delta, task_.batch, 0, pixels, tokens);
    if (p_.gate.data != nullptr) gate_offsets_.set(p_.gate, task_.batch, 0, pixels, tokens);
    if (p_.rank > 0) load_rows(p_.dt, direction_, p_.rank, dt_rows_, whole_vectors<V>(p_.rank), pixels, tokens);
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const ChannelBlock& block = p_.blocks[b];
      if (block.group != group_) load_group(block.group, pixels, tokens);
      float* h = h_ + (b - task_.block_begin) * p_.state * W;
      if (p_.state <= kShortState) {
        scan_block<kShortState>(block, weights(b), h, tokens);
      } else {
        scan_block<0>(block, weights(b), h, tokens);
      }
    }
  }

  const float* weights(int64_t block) const {
    return p_.weights + (direction_ * p_.block_count + block) * layout_.size;
  }

  void load_group(int group, const Pixels<V, T>& pixels, int tokens) {
    const int slot = direction_ + group;  // one of the two is always 0
    load_rows(p_.input_matrix, slot, p_.state, input_rows_, row_stride_, pixels, tokens);
    load_rows(p_.output_matrix, slot, p_.state, output_rows_, row_stride_, pixels, tokens);
    group_ = group;
  }

  void load_rows(const View& view, int slot, int64_t count, float* rows, int64_t stride, const Pixels<V, T>& pixels,
                 int tokens) const {
    const int64_t base = task_.batch * view.batch + slot * view.slot;
    for (int t = 0; t < tokens; ++t) Tile<V>::load_row(view, base + pixels.offset(view, t), count, rows + t * stride);
    for (int64_t i = tokens * stride; i < T * stride; ++i) rows[i] = 0.0f;
  }

  template <int64_t fixed_stride>
  void scan_block(const ChannelBlock& block, const float* weights, float* h, int tokens) {
    const StepBounds<V> bounds = compute_steps(block, weights, tokens);
    const int64_t stride = fixed_stride != 0 ? fixed_stride : row_stride_;
    for (int64_t n = 0; n < p_.state; ++n) {
      const V rate = V::load(weights + layout_.decay + n * W);
      const float* input = input_rows_ + n;
      const float* output = output_rows_ + n;
      float* state = h + n * W;
      switch (bounds.range(rate)) {
        case Range::near_one: advance<Range::near_one>(state, rate, input, output, stride); break;
        case Range::unit: advance<Range::unit>(state, rate, input, output, stride); break;
        case Range::normal: advance<Range::normal>(state, rate, input, output, stride); break;
        case Range::any: advance<Range::any>(state, rate, input, output, stride); break;
      }
    }
    store_outputs(block, tokens);
  }

  // One state over the tile: h = exp(delta A) h + delta x B, y += C h.
  template <Range range>
  void advance(float* h, V rate, const float* input, const float* output, int64_t stride) {
    V state = V::load(h);
    for (int first = 0; first < T; first += G) {
      const Several decays = decays_of<range, Several>(step_ + first * W, Several::all(rate));
#pragma GCC unroll 16
      for (int t = first; t < first + G; ++t) {
        state = decayed_plus<range, V>(state, decays[t - first], V::load(drive_ + t * W) * V::all(input[t * stride]));
        V::fma(state, V::all(output[t * stride]), V::load(y_ + t * W)).store(y_ + t * W);
      }
    }
    state.store(h);
  }

  // Fills step_ and drive_, starts y_ with the skip term.
  StepBounds<V> compute_steps(const ChannelBlock& block, const float* weights, int tokens) {
    const Several skip = Several::all(V::load(weights + layout_.skip));
    Tile<V>::gather(p_.x, x_offsets_.at, block.first, block.lanes, tokens, y_);
    if (p_.rank == 0) Tile<V>::gather(p_.delta, delta_offsets_.at, block.first, block.lanes, tokens, step_);
    StepBounds<Several> bounds;
    for (int first = 0; first < tokens; first += G) {
      const Several raw = raw_steps(weights, first);
      const Several steps = p_.softplus ? Softplus<Several>(raw).value : raw;
      const Several x = Several::load(y_ + first * W);
      bounds.include(steps);
      steps.store(step_ + first * W);
      (steps * x).store(drive_ + first * W);
      (skip * x).store(y_ + first * W);
    }
    // Tokens that do not exist leave the state as it is.
    for (int i = tokens * W; i < T * W; ++i) step_[i] = drive_[i] = 0.0f;
    return bounds.merged();
  }

  // delta before softplus, of G tokens.
  Several raw_steps(const float* weights, int first) const {
    Several raw = Several::all(V::load(weights + layout_.bias));
    if (p_.rank == 0) return raw + Several::load(step_ + first * W);
    const int64_t stride = whole_vectors<V>(p_.rank);
    for (int64_t r = 0; r < p_.rank; ++r) {
      const Several weight = Several::all(V::load(weights + layout_.projection + r * W));
      raw = Several::fma(Several::all_of(dt_rows_ + first * stride + r, stride), weight, raw);
    }
    return raw;
  }

  void store_outputs(const ChannelBlock& block, int tokens) {
    if (p_.gate.data != nullptr) {
      Tile<V>::gather(p_.gate, gate_offsets_.at, block.first, block.lanes, tokens, step_);
      for (int t = 0; t < tokens; ++t) {
        const V gate = V::load(step_ + t * W);
        (V::load(y_ + t * W) * gate * sigmoid<V>(gate)).store(y_ + t * W);
      }
    }
    Tile<V>::scatter(outputs_.y, y_offsets_.at, block.first, block.lanes, tokens, direction_ > 0, y_);
  }

  void prefetch(const Pixels<V, T>& pixels, int tokens) const {
    const int64_t first = p_.blocks[task_.block_begin].first;
    const ChannelBlock& last = p_.blocks[task_.block_end - 1];
    const int64_t count = last.first + last.lanes - first;
    for (int t = 0; t < tokens; ++t) {
      const auto ahead = [&](const View& view, int64_t offset, int64_t numbers) {
        if (view.data == nullptr) return;
        Tile<V>::prefetch(view, task_.batch * view.batch + pixels.offset(view, t) + offset, numbers);
      };
      ahead(p_.x, first, count);
      ahead(p_.delta, first, count);
      if (direction_ > 0) ahead(outputs_.y, first, count);
      ahead(p_.dt, direction_ * p_.dt.slot, p_.rank);
      ahead(p_.input_matrix, direction_ * p_.input_matrix.slot, p_.state);
      ahead(p_.output_matrix, direction_ * p_.output_matrix.slot, p_.state);
    }
  }

  void load_initial_state() {
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      float* h = h_ + (b - task_.block_begin) * p_.state * W;
      for (int64_t i = 0; i < p_.state * W; ++i) h[i] = 0.0f;
      if (p_.initial_state == nullptr) continue;
      const ChannelBlock& block = p_.blocks[b];
      const float* from = p_.initial_state + (task_.batch * p_.channels + block.first) * p_.state;
      for (int lane = 0; lane < block.lanes; ++lane) {
        for (int64_t n = 0; n < p_.state; ++n) h[n * W + lane] = from[lane * p_.state + n];
      }
    }
  }

  void store_last_state() const {
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const float* h = h_ + (b - task_.block_begin) * p_.state * W;
      const ChannelBlock& block = p_.blocks[b];
      float* to = outputs_.last_state + (task_.batch * p_.channels + block.first) * p_.state;
      for (int lane = 0; lane < block.lanes; ++lane) {
        for (int64_t n = 0; n < p_.state; ++n) to[lane * p_.state + n] = h[n * W + lane];
      }
    }
  }

  void save_states(int64_t chunk) const {
    float* to = p_.states + ((task_.batch * p_.directions + direction_) * p_.chunks + chunk) * p_.state * p_.channels;
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const float* h = h_ + (b - task_.block_begin) * p_.state * W;
      const ChannelBlock& block = p_.blocks[b];
      for (int64_t n = 0; n < p_.state; ++n) {
        V::load(h + n * W).store_some(to + n * p_.channels + block.first, block.lanes);
      }
    }
  }
};

}  // namespace mambair
