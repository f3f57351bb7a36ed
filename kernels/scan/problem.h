// What a scan works on, in plain numbers and pointers: shared by the operators (compiled once, for any processor)
// and the kernels (compiled once per instruction set). No function with linkage may live here: the linker would
// keep one instruction set's copy of it for everybody.
#pragma once

#include <cstdint>

#include "fused/layers.h"

namespace mambair {

// Tokens between two saved states; the Python side (STATE_CHUNK) allocates by the same number.
inline constexpr int kStateChunk = 64;

enum class Precision : int { float32, bfloat16, float16 };

// A tensor addressed as [batch, row, column, slot, contiguous last axis]; strides count elements.
// The slot is the direction of the 2-D scan and the channel group of the 1-D scan.
struct View {
  void* data = nullptr;
  Precision precision = Precision::float32;
  int64_t batch = 0;
  int64_t row = 0;
  int64_t column = 0;
  int64_t slot = 0;
};

enum class Direction : int { rows = 0, columns = 1, reversed_rows = 2, reversed_columns = 3 };

// One vector's worth of neighbouring channels; `lanes` of them exist.
struct ChannelBlock {
  int64_t first = 0;
  int lanes = 0;
  int group = 0;
};

// Weights of one (direction, channel block), transposed to lanes; lanes that do not exist hold zero.
// Offsets in floats from the block's start, `lanes` = vector width of the kernels in use.
struct WeightLayout {
  int64_t bias, skip, decay, projection, size;
};

constexpr WeightLayout weight_layout(int64_t lanes, int64_t state, int64_t rank) {
  return {0, lanes, 2 * lanes, (2 + state) * lanes, (2 + state + rank) * lanes};
}

// Both operators. 2-D: rank > 0, `dt` holds the low-rank step and delta.data is null. 1-D: rank 0, `delta` is read,
// height 1, and a token's pixel may come from `index`.
struct Problem {
  int64_t batch, height, width, channels, state, rank, directions;
  const int* order;             // [directions] Direction of each slot
  const int64_t* index;         // [batch, width] or null
  bool softplus;                // delta = softplus(raw + bias), else raw + bias
  const ChannelBlock* blocks;   // [block_count]
  int64_t block_count;
  const float* weights;         // [directions, block_count] of WeightLayout
  View x, dt, delta, input_matrix, output_matrix, gate;  // input_matrix is B, output_matrix is C; gate is z
  const float* initial_state;   // [batch, channels, state] or null
  float* states;                // [batch, directions, chunks, state, channels] or null
  int64_t chunks;
  float* carry;                 // [batch, directions, block_count, N, lanes]: a section's states (backward: their
                                // gradients) for the next one

  int64_t length() const { return height * width; }
};

struct ForwardOutputs {
  View y;              // float32 unless there is one direction
  float* last_state;   // [batch, channels, state] or null
};

// Gradients of weights have the layout of the weights themselves (bias, skip, decay, projection), one copy per
// batch item, so that no two tasks ever add to the same number.
struct BackwardOutputs {
  View grad_y;                                  // input
  const float* grad_last_state;                 // input, [batch, channels, state] or null
  View x, dt, delta, input_matrix, output_matrix, gate;  // float32 where more than one task step adds to them
  float* initial_state;                         // [batch, channels, state] or null
  float* weights;                               // [batch, directions, block_count] of WeightLayout
};

// Some of the tokens along one direction, in chunks of kStateChunk.
struct Section {
  int direction = 0;
  int64_t chunk_begin = 0, chunk_end = 0;
  int64_t added_begin = 0, added_end = 0;  // tokens that add to what other directions left; the others come first
};

// A box of work: one batch item, one section, some channel blocks.
struct Task {
  int64_t batch;
  Section section;
  int64_t block_begin, block_end;
};

// What one instruction set offers.
struct KernelTable {
  const char* name;
  int lanes;
  int64_t (*forward_scratch)(const Problem&);                   // floats needed by one running task
  int64_t (*backward_scratch)(const Problem&);
  void (*forward)(const Problem&, const ForwardOutputs&, const Task&, float* scratch);
  void (*backward)(const Problem&, const BackwardOutputs&, const Task&, float* scratch);
  void (*convert)(const float* from, const View& to, int64_t count);  // contiguous, rounds to to.precision
  float (*exponentials)(int64_t thousands);                     // calibration: that many times 1024 exponentials
  FusedTable fused;
};

// Null when the library was compiled for another processor family.
const KernelTable* portable_kernels();
const KernelTable* avx2_kernels();
const KernelTable* avx512_kernels();

}  // namespace mambair
