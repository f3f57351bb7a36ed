// From torch tensors to plain views and back.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "problem.h"

namespace mambair {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

using Shape = std::vector<int64_t>;

// Throws where a size differs; -1 accepts any.
void check_shape(const Tensor& tensor, const char* name, const Shape& expected);

// Throws for anything but float32, bfloat16 and float16.
Precision precision_of(const Tensor& tensor, const char* name);

// The tensor itself if neighbours along its last axis are neighbours in memory, else a copy.
Tensor with_dense_rows(const Tensor& tensor);

// A contiguous float32 copy, or the tensor itself if it is that already.
Tensor as_float32(const Tensor& tensor);

// A contiguous tensor on the CPU.
Tensor allocate(const Shape& shape, ScalarType type);
Tensor allocate_like(const Tensor& tensor, ScalarType type);
Shape shape_of(const Tensor& tensor);
float* floats(const Tensor& tensor);

// Axes that a view's strides are taken from; -1 leaves a stride at 0.
struct Axes {
  int batch, row, column, slot;
};
View view_of(const Tensor& tensor, const Axes& axes, int64_t offset = 0);

// An output that is summed in float32 and rounded once: the result itself where that is float32 (or where nothing is
// summed), else a float32 stand-in until finish().
class SummedOutput {
 public:
  SummedOutput(const Tensor& like, bool summed);
  const Tensor& working() const { return working_; }
  Tensor finish() const;

 private:
  Tensor result_, working_;
};

// Channels cut into vectors that never cross a group's edge.
std::vector<ChannelBlock> channel_blocks(int64_t channels, int64_t groups, int lanes);

// Weights of all directions in lane order. Inputs are float32: bias, skip [K, D], A [K, D, N], projection [K, D, R];
// bias, skip and projection may be null.
struct PlainWeights {
  const float* bias;
  const float* skip;
  const float* decay;
  const float* projection;
};
std::vector<float> pack_weights(const Problem& problem, const PlainWeights& weights, int lanes);

// The reverse for gradients, summed over the batch in order; null outputs are skipped.
struct PlainGradients {
  float* bias;
  float* skip;
  float* decay;
  float* projection;
};
void unpack_gradients(const Problem& problem, const std::vector<float>& packed, const PlainGradients& to, int lanes);

}  // namespace mambair
