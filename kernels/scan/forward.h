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
  static int64_t scratch(const Problem& problem) { return (problem.rank + 2 * problem.state) * T; }

  static void run(const Problem& problem, const ForwardOutputs& outputs, const Task& task, float* scratch) {
    Forward(problem, outputs, task, scratch).scan();
  }

 private:
  static constexpr int W = V::lanes;
  static constexpr int T = V::forward_tokens;
  static_assert(kStateChunk % T == 0);
  static constexpr int G = V::chains;  // exponentials under way together
  using Several = Group<V, G>;
  static constexpr int kAskedPerState = 2 * T / G;  // lines asked for while one state runs

  const Problem& p_;
  const ForwardOutputs& outputs_;
  const Task& task_;
  const WeightLayout layout_;
  const bool all_float32_;
  const int direction_;
  float* const h_;            // [blocks of the task, N, W]
  float* const dt_rows_;      // [R, T]
  float* const input_rows_;   // [N, T]: B
  float* const output_rows_;  // [N, T]: C
  int group_ = -1;            // whose B and C the rows hold

  // Where a tile's tokens lie.
  struct Place {
    int64_t first = 0;
    int tokens = 0;
    Pixels<V, T> pixels;
    Offsets<T> x, y, dt, input, output, delta, gate;
  };

  // What is worked on next: another channel block, of this tile or the one ahead.
  struct Next {
    const ChannelBlock& block;
    const Place& place;
    bool other_tile;
  };

  alignas(64) float step_[T * W];   // delta
  alignas(64) float drive_[T * W];  // delta * x
  alignas(64) float y_[T * W];      // x, then y
  const char* wanted_[2 * T + kAskedPerState];

  Forward(const Problem& problem, const ForwardOutputs& outputs, const Task& task, float* scratch)
      : p_(problem),
        outputs_(outputs),
        task_(task),
        layout_(weight_layout(W, problem.state, problem.rank)),
        all_float32_(all_float32(problem) && outputs.y.precision == Precision::float32),
        direction_(task.section.direction),
        h_(carry_of<V>(problem, task)),
        dt_rows_(scratch),
        input_rows_(dt_rows_ + T * problem.rank),
        output_rows_(input_rows_ + T * problem.state) {
    for (int i = 0; i < T * W; ++i) y_[i] = 0.0f;
  }

  static bool all_float32(const Problem& p) {
    const View* const views[] = {&p.x, &p.dt, &p.delta, &p.input_matrix, &p.output_matrix, &p.gate};
    for (const View* view : views) {
      if (view->precision != Precision::float32) return false;
    }
    return true;
  }

  void scan() {
    const Section& section = task_.section;
    const int64_t begin = section.chunk_begin * kStateChunk;
    const int64_t end = section.chunk_end == p_.chunks ? p_.length() : section.chunk_end * kStateChunk;
    if (begin == 0) load_initial_state();
    if (begin < end) scan_tokens(begin, end);
    if (outputs_.last_state != nullptr && end == p_.length()) store_last_state();
  }

  void scan_tokens(int64_t begin, int64_t end) {
    Walk<V> walk(p_, task_.batch, static_cast<Direction>(p_.order[direction_]), begin);
    Place places[2];
    find(places[begin / T % 2], walk, begin, end);
    for (int64_t first = begin; first < end; first += T) {
      const Place& here = places[first / T % 2];
      Place& ahead = places[(first / T + 1) % 2];
      find(ahead, walk, first + T, end);
      if (p_.states != nullptr && first % kStateChunk == 0) save_states(first / kStateChunk);
      scan_tile(here, ahead);
    }
  }

  void find(Place& place, Walk<V>& walk, int64_t first, int64_t end) const {
    const int64_t left = end - first;
    place.first = first;
    place.tokens = left >= T ? T : left > 0 ? static_cast<int>(left) : 0;
    if (place.tokens == 0) return;
    walk.next(place.pixels, place.tokens);
    place.pixels.repeat_last(place.tokens);
    place.x.set(p_.x, task_.batch, place.pixels);
    place.y.set(outputs_.y, task_.batch, place.pixels);
    place.dt.set(p_.dt, task_.batch, place.pixels);
    place.input.set(p_.input_matrix, task_.batch, place.pixels);
    place.output.set(p_.output_matrix, task_.batch, place.pixels);
    place.delta.set(p_.delta, task_.batch, place.pixels);
    place.gate.set(p_.gate, task_.batch, place.pixels);
  }

  void scan_tile(const Place& place, const Place& ahead) {
    group_ = -1;
    if (p_.rank > 0) {
      Rows<V, T>::load(p_.dt, place.dt.at, direction_ * p_.dt.slot, p_.rank, place.tokens, dt_rows_);
    }
    for (int64_t b = task_.block_begin; b < task_.block_end; ++b) {
      const ChannelBlock& block = p_.blocks[b];
      if (block.group != group_) load_group(block.group, place);
      scan_block(block, weights(b), h_ + (b - task_.block_begin) * p_.state * W, place,
                 after(b, place, ahead));
    }
  }

  Next after(int64_t block, const Place& here, const Place& ahead) const {
    const bool last = block + 1 == task_.block_end;
    return {p_.blocks[last ? task_.block_begin : block + 1], last ? ahead : here, last};
  }

  const float* weights(int64_t block) const {
    return p_.weights + (direction_ * p_.block_count + block) * layout_.size;
  }

  void load_group(int group, const Place& place) {
    const int slot = direction_ + group;  // one of the two is always 0
    const View &input = p_.input_matrix, &output = p_.output_matrix;
    Rows<V, T>::load(input, place.input.at, slot * input.slot, p_.state, place.tokens, input_rows_);
    Rows<V, T>::load(output, place.output.at, slot * output.slot, p_.state, place.tokens, output_rows_);
    group_ = group;
  }

  void scan_block(const ChannelBlock& block, const float* weights, float* h, const Place& place,
                  const Next& next) {
    const bool whole_float32 = block.lanes == W && all_float32_;
    const StepBounds<V> bounds = whole_float32 ? compute_steps<true>(block, weights, place, next)
                                               : compute_steps<false>(block, weights, place, next);
    want(next);
    for (int64_t n = 0; n < p_.state; ++n) {
      const V rate = V::load(weights + layout_.decay + n * W);
      const float* input = input_rows_ + n * T;
      const float* output = output_rows_ + n * T;
      float* state = h + n * W;
      const char* const* wanted = wanted_ + (n < 2 * T / kAskedPerState ? n * kAskedPerState : 2 * T);
      switch (bounds.range(rate)) {
        case Range::near_one: advance<Range::near_one>(state, rate, input, output, wanted); break;
        case Range::unit: advance<Range::unit>(state, rate, input, output, wanted); break;
        case Range::square: advance<Range::square>(state, rate, input, output, wanted); break;
        case Range::normal: advance<Range::normal>(state, rate, input, output, wanted); break;
        case Range::any: advance<Range::any>(state, rate, input, output, wanted); break;
      }
    }
    store_outputs(block, place);
  }

  // Lists the pixels of what comes next. They are asked for a few at a time while the states run: first-level cache
  // waits for ten or so lines at once, and whoever asks for more has to wait.
  void want(const Next& next) {
    Tile<V>::list(p_.x, next.place.x, next.block, wanted_);
    Tile<V>::list(outputs_.y, next.place.y, next.block, wanted_ + T);
    for (int i = 0; i < kAskedPerState; ++i) wanted_[2 * T + i] = wanted_[2 * T - 1];
    for (int64_t i = p_.state * kAskedPerState; i < 2 * T; ++i) __builtin_prefetch(wanted_[i]);
  }

  // One state over the tile: h = exp(delta A) h + delta x B, y += C h.
  template <Range range>
  [[gnu::noinline]] void advance(float* h, V rate, const float* input, const float* output,
                                  const char* const* wanted) {
    V state = V::load(h);
    for (int first = 0; first < T; first += G) {
      for (int i = 0; i < kAskedPerState * G / T; ++i) __builtin_prefetch(*wanted++);
      const Several decays = decays_of<range, Several>(step_ + first * W, Several::all(rate));
#pragma GCC unroll 16
      for (int t = first; t < first + G; ++t) {
        state = decayed_plus<range, V>(state, decays[t - first], V::load(drive_ + t * W) * V::all(input[t]));
        V::fma(state, V::all(output[t]), V::load(y_ + t * W)).store(y_ + t * W);
      }
    }
    state.store(h);
  }

  // Fills step_ and drive_, starts y_ with the skip term. Pixels are loaded between the arithmetic, which hides how
  // long they take.
  template <bool whole_float32>
  StepBounds<V> compute_steps(const ChannelBlock& block, const float* weights, const Place& place,
                              const Next& next) {
    const auto load = [&](const View& view, const Offsets<T>& offsets, int first) {
      return Several::each([&](int i) {
        const int64_t at = offsets.at[first + i] + block.first;
        if constexpr (whole_float32) return V::load(static_cast<const float*>(view.data) + at);
        return Tile<V>::load(view, at, block.lanes);
      });
    };
    const Several skip = Several::all(V::load(weights + layout_.skip));
    const Several bias = Several::all(V::load(weights + layout_.bias));
    StepBounds<V> bounds;
    // Missing tokens of the last few read the last token's pixel; what they give is cleared below.
    for (int first = 0; first < place.tokens; first += G) {
      prefetch<whole_float32>(next, first);
      const Several raw = p_.rank > 0 ? projected_steps(weights, first) : bias + load(p_.delta, place.delta, first);
      const Several steps = p_.softplus ? Softplus<Several>(raw).value : raw;
      const Several x = load(p_.x, place.x, first);
      bounds.include(steps, p_.softplus);
      steps.store(step_ + first * W);
      (steps * x).store(drive_ + first * W);
      (skip * x).store(y_ + first * W);
    }
    // Tokens that do not exist leave the state as it is.
    for (int i = place.tokens * W; i < T * W; ++i) step_[i] = drive_[i] = 0.0f;
    return bounds;
  }

  // dt_weight dt + bias, of some tokens.
  Several projected_steps(const float* weights, int first) const {
    Several raw = Several::all(V::load(weights + layout_.bias));
    for (int64_t r = 0; r < p_.rank; ++r) {
      const Several weight = Several::all(V::load(weights + layout_.projection + r * W));
      raw = Several::fma(Several::all_of(dt_rows_ + r * T + first, 1), weight, raw);
    }
    return raw;
  }

  void store_outputs(const ChannelBlock& block, const Place& place) {
    if (p_.gate.data != nullptr) {
      Tile<V>::gather(p_.gate, place.gate.at, block.first, block.lanes, place.tokens, step_);
      for (int t = 0; t < place.tokens; ++t) {
        const V gate = V::load(step_ + t * W);
        (V::load(y_ + t * W) * gate * sigmoid<V>(gate)).store(y_ + t * W);
      }
    }
    Tile<V>::scatter(outputs_.y, place.y.at, block.first, block.lanes, place.tokens, task_.section, place.first, y_);
  }

  // What the next block needs besides the list: near enough to stay in first-level cache until then, and spread over
  // the work on this block. Inlined, because compilers take a function that only prefetches for one that does nothing.
  template <bool all_float32>
  [[gnu::always_inline]] inline void prefetch(const Next& next, int first) const {
    const auto pixels = [&](const View& view, const Offsets<T>& offsets, int64_t channel)
                            __attribute__((always_inline)) {
      if (view.data == nullptr) return;
      for (int t = first; t < first + G; ++t) Tile<V>::template prefetch<all_float32>(view, offsets.at[t] + channel);
    };
    const int64_t begin = next.block.first, end = begin + next.block.lanes - 1;
    pixels(p_.delta, next.place.delta, end);
    pixels(p_.gate, next.place.gate, end);
    if (!next.other_tile) return;
    pixels(p_.x, next.place.x, begin);
    pixels(outputs_.y, next.place.y, begin);
    pixels(p_.delta, next.place.delta, begin);
    pixels(p_.gate, next.place.gate, begin);
    const auto row = [&](const View& view, const Offsets<T>& offsets, int64_t slot, int64_t count)
                         __attribute__((always_inline)) {
      for (int t = first; t < first + G; ++t) {
        const int64_t at = offsets.at[t] + slot * view.slot;
        for (int64_t j = 0; j < count; j += W) Tile<V>::template prefetch<all_float32>(view, at + j);
        Tile<V>::template prefetch<all_float32>(view, at + count - 1);
      }
    };
    if (p_.rank > 0) row(p_.dt, next.place.dt, direction_, p_.rank);
    row(p_.input_matrix, next.place.input, direction_ + next.block.group, p_.state);
    row(p_.output_matrix, next.place.output, direction_ + next.block.group, p_.state);
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
