// Moving pixels between tensors and small float32 tiles: the walk along a scan direction, element types, edges.
// Everything is a member of a template on the simd wrapper, so that each instruction set has its own copy.
#pragma once

#include <cstdint>

#include "problem.h"

namespace mambair {

// Where the next `count` tokens of a scan lie in the image.
template <class V, int count>
struct Pixels {
  int64_t row[count] = {};
  int64_t column[count] = {};

  // Tokens that do not exist lie where the last one lies, so that a load of them is harmless.
  void repeat_last(int tokens) {
    for (int t = tokens; t < count; ++t) {
      row[t] = row[tokens - 1];
      column[t] = column[tokens - 1];
    }
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

  // Run by run: the tokens of a run lie in one row or column of the image.
  template <int count>
  void next(Pixels<V, count>& pixels, int tokens) {
    int64_t* const along = by_rows_ ? pixels.column : pixels.row;
    int64_t* const across = by_rows_ ? pixels.row : pixels.column;
    for (int t = 0; t < tokens;) {
      const int run = left_ < tokens - t ? static_cast<int>(left_) : tokens - t;
      for (int i = 0; i < run; ++i) {
        along[t + i] = inner_ + i * step_;
        across[t + i] = outer_;
      }
      if (index_ != nullptr) {
        for (int i = 0; i < run; ++i) pixels.column[t + i] = index_[token_ + i];
      }
      t += run;
      token_ += run;
      inner_ += run * step_;
      left_ -= run;
      if (left_ == 0) {
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
  int64_t at[count] = {};

  // All of them, as a loop of fixed length runs in vectors; those of tokens that do not exist are not used.
  template <class V>
  void set(const View& view, int64_t batch, const Pixels<V, count>& pixels) {
    if (view.data == nullptr) return;
    const int64_t base = batch * view.batch;
    for (int t = 0; t < count; ++t) at[t] = base + pixels.row[t] * view.row + pixels.column[t] * view.column;
  }
};

// The task's part of what sections leave to each other.
template <class V>
inline float* carry_of(const Problem& problem, const Task& task) {
  const int64_t scan = task.batch * problem.directions + task.section.direction;
  return problem.carry + (scan * problem.block_count + task.block_begin) * problem.state * V::lanes;
}

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

  // As scatter, adding where the section does; `token` is the tile's first.
  static void scatter(const View& view, const int64_t* offsets, int64_t first, int lanes, int tokens,
                      const Section& section, int64_t token, const float* tile) {
    const int begin = bounded(section.added_begin - token, 0, tokens);
    const int end = bounded(section.added_end - token, begin, tokens);
    scatter(view, offsets, first, lanes, begin, false, tile);
    scatter(view, offsets + begin, first, lanes, end - begin, true, tile + begin * V::lanes);
    scatter(view, offsets + end, first, lanes, tokens - end, false, tile + end * V::lanes);
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

  // Asks for the cache line of one number.
  template <bool is_float32>
  [[gnu::always_inline]] static inline void prefetch(const View& view, int64_t offset) {
    const int64_t size = is_float32 ? 4 : element_size(view.precision);
    __builtin_prefetch(static_cast<const char*>(view.data) + offset * size);
  }

  // Where a channel block of each token ends; the line in which it begins is where the block before it ends.
  template <int count>
  static void list(const View& view, const Offsets<count>& offsets, const ChannelBlock& block, const char** wanted) {
    const int64_t size = element_size(view.precision);
    const char* from = static_cast<const char*>(view.data) + (block.first + block.lanes - 1) * size;
    for (int t = 0; t < count; ++t) wanted[t] = from + offsets.at[t] * size;
  }

 private:
  static int bounded(int64_t value, int least, int most) {
    return value < least ? least : value > most ? most : static_cast<int>(value);
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

// Rows [count, columns]: one row per number of a token, one column per token. A row's numbers are broadcast one after
// another while a state runs over its tokens.
template <class V, int columns>
struct Rows {
  // From tokens to rows; columns of tokens that do not exist become zero.
  static void load(const View& view, const int64_t* offsets, int64_t base, int64_t count, int tokens, float* rows) {
    if (view.precision == Precision::float32 && tokens == columns) {
      const float* from = static_cast<const float*>(view.data) + base;
      transpose_in(count, rows, [&](int t, int64_t j, int present) {
        return V::load_some(from + offsets[t] + j, present);
      });
    } else {
      transpose_in(count, rows, [&](int t, int64_t j, int present) {
        return t < tokens ? Tile<V>::load(view, offsets[t] + base + j, present) : V::all(0.0f);
      });
    }
  }

  // The reverse.
  static void store(const View& view, const int64_t* offsets, int64_t base, int64_t count, int tokens,
                    const float* rows) {
    for (int first = 0; first < tokens; first += V::lanes) {
      for (int64_t j = 0; j < count; j += V::lanes) {
        const int present = lanes_from(j, count);
        V square[V::lanes];
#pragma GCC unroll 16
        for (int i = 0; i < V::lanes; ++i) {
          square[i] = i < present ? V::load(rows + (j + i) * columns + first) : V::all(0.0f);
        }
        transpose<V>(square);
#pragma GCC unroll 16
        for (int i = 0; i < V::lanes; ++i) {
          const int t = first + i;
          if (t < tokens) Tile<V>::store(view, offsets[t] + base + j, square[i], present);
        }
      }
    }
  }

 private:
  static int lanes_from(int64_t first, int64_t count) {
    return count - first < V::lanes ? static_cast<int>(count - first) : V::lanes;
  }

  template <class LoadToken>
  static void transpose_in(int64_t count, float* rows, const LoadToken& load_token) {
    for (int first = 0; first < columns; first += V::lanes) {
      for (int64_t j = 0; j < count; j += V::lanes) {
        const int present = lanes_from(j, count);
        V square[V::lanes];
#pragma GCC unroll 16
        for (int i = 0; i < V::lanes; ++i) square[i] = load_token(first + i, j, present);
        transpose<V>(square);
#pragma GCC unroll 16
        for (int i = 0; i < V::lanes; ++i) {
          if (i < present) square[i].store(rows + (j + i) * columns + first);
        }
      }
    }
  }
};

}  // namespace mambair
