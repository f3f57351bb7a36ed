// Moving pixels between tensors and small float32 tiles: the walk along a scan direction, element types, edges.
// Everything is a member of a template on the simd wrapper, so that each instruction set has its own copy.
#pragma once

#include <cstdint>

#include "problem.h"

namespace mambair {

// Where the next `count` tokens of a scan lie in the image.
template <class V, int count>
struct Pixels {
  int64_t row[count];
  int64_t column[count];

  int64_t offset(const View& view, int token) const {
    return row[token] * view.row + column[token] * view.column;
  }
};

// Walks the tokens of one scan, forwards from any token.
template <class V>
class Walk {
 public:
  Walk(const Problem& problem, int64_t batch, Direction direction, int64_t token)
      : token_(token), index_(problem.index == nullptr ? nullptr : problem.index + batch * problem.width) {
    const bool by_rows = direction == Direction::rows || direction == Direction::reversed_rows;
    const bool reversed = direction == Direction::reversed_rows || direction == Direction::reversed_columns;
    by_rows_ = by_rows;
    inner_size_ = by_rows ? problem.width : problem.height;
    const int64_t outer_size = by_rows ? problem.height : problem.width;
    step_ = reversed ? -1 : 1;
    first_ = reversed ? inner_size_ - 1 : 0;
    outer_ = token / inner_size_;
    const int64_t inner = token % inner_size_;
    inner_ = reversed ? inner_size_ - 1 - inner : inner;
    outer_ = reversed ? outer_size - 1 - outer_ : outer_;
    left_ = inner_size_ - inner;
  }

  template <int count>
  void next(Pixels<V, count>& pixels, int tokens) {
    for (int t = 0; t < tokens; ++t) {
      pixels.row[t] = by_rows_ ? outer_ : inner_;
      pixels.column[t] = index_ != nullptr ? index_[token_] : by_rows_ ? inner_ : outer_;
      ++token_;
      inner_ += step_;
      if (--left_ == 0) {
        left_ = inner_size_;
        inner_ = first_;
        outer_ += step_;
      }
    }
  }

 private:
  int64_t token_, outer_, inner_, inner_size_, first_, step_, left_;
  const int64_t* index_;
  bool by_rows_;
};

// Where the tokens of a tile lie in one tensor, for channel 0 of the batch item.
template <int count>
struct Offsets {
  int64_t at[count];

  template <class V>
  void set(const View& view, int64_t batch, int64_t slot, const Pixels<V, count>& pixels, int tokens) {
    const int64_t base = batch * view.batch + slot * view.slot;
    for (int t = 0; t < tokens; ++t) at[t] = base + pixels.offset(view, t);
  }
};

template <class V>
struct Tile {
  static constexpr int64_t element_size(Precision precision) { return precision == Precision::float32 ? 4 : 2; }

  // Fills tile[tokens, V::lanes] with the channels from `first` on; lanes that do not exist become zero.
  static void gather(const View& view, const int64_t* offsets, int64_t first, int lanes, int tokens, float* tile) {
    if (view.precision == Precision::float32 && lanes == V::lanes) {
      const float* from = static_cast<const float*>(view.data) + first;
      for (int t = 0; t < tokens; ++t) V::load(from + offsets[t]).store(tile + t * V::lanes);
    } else {
      for (int t = 0; t < tokens; ++t) load(view, offsets[t] + first, lanes).store(tile + t * V::lanes);
    }
  }

  // The reverse; `add` keeps what is there (float32 only).
  static void scatter(const View& view, const int64_t* offsets, int64_t first, int lanes, int tokens, bool add,
                      const float* tile) {
    if (view.precision == Precision::float32 && lanes == V::lanes) {
      float* to = static_cast<float*>(view.data) + first;
      for (int t = 0; t < tokens; ++t) {
        const V value = V::load(tile + t * V::lanes);
        (add ? V::load(to + offsets[t]) + value : value).store(to + offsets[t]);
      }
    } else {
      for (int t = 0; t < tokens; ++t) {
        const V value = V::load(tile + t * V::lanes);
        const int64_t offset = offsets[t] + first;
        store(view, offset, add ? load(view, offset, lanes) + value : value, lanes);
      }
    }
  }

  static V load(const View& view, int64_t offset, int lanes) {
    if (view.precision == Precision::float32) {
      const float* from = static_cast<const float*>(view.data) + offset;
      return lanes == V::lanes ? V::load(from) : V::load_some(from, lanes);
    }
    const uint16_t* from = static_cast<const uint16_t*>(view.data) + offset;
    return view.precision == Precision::bfloat16 ? V::load_bfloat16(from, lanes) : V::load_float16(from, lanes);
  }

  static void store(const View& view, int64_t offset, V value, int lanes) {
    if (view.precision == Precision::float32) {
      float* to = static_cast<float*>(view.data) + offset;
      lanes == V::lanes ? value.store(to) : value.store_some(to, lanes);
      return;
    }
    uint16_t* to = static_cast<uint16_t*>(view.data) + offset;
    view.precision == Precision::bfloat16 ? value.store_bfloat16(to, lanes) : value.store_float16(to, lanes);
  }

  // Any number of neighbours; `to` has room for whole vectors and is zero behind the last number.
  static void load_row(const View& view, int64_t offset, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += V::lanes) {
      const int lanes = count - i < V::lanes ? static_cast<int>(count - i) : V::lanes;
      load(view, offset + i, lanes).store(to + i);
    }
  }

  static void prefetch(const View& view, int64_t offset, int64_t count) {
    const int64_t size = element_size(view.precision);
    const char* from = static_cast<const char*>(view.data) + offset * size;
    for (int64_t byte = 0; byte < count * size; byte += 64) __builtin_prefetch(from + byte);
  }
};

// A square of V::lanes vectors in registers, transposed in place: blocks of half the lanes first, single lanes last.
template <class V, int distance = V::lanes / 2>
[[gnu::always_inline]] inline void transpose(V* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < V::lanes; ++i) {
    if ((i & distance) == 0) V::template exchange<distance>(rows[i], rows[i + distance]);
  }
  if constexpr (distance > 1) transpose<V, distance / 2>(rows);
}

// Numbers in a row, rounded up to whole vectors.
template <class V>
constexpr int64_t whole_vectors(int64_t count) {
  return (count + V::lanes - 1) / V::lanes * V::lanes;
}

}  // namespace mambair
