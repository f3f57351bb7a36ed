#include "tensors.h"

#include <torch/headeronly/util/Exception.h>

#include "choose.h"
#include "math.h"
#include "schedule.h"

namespace mambair {

Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

void check_shape(const Tensor& tensor, const char* name, const Shape& expected) {
  const Shape found = shape_of(tensor);
  bool same = found.size() == expected.size();
  for (std::size_t i = 0; same && i < found.size(); ++i) same = expected[i] == -1 || expected[i] == found[i];
  if (same) return;
  const auto text = [](const Shape& shape) {
    std::string list;
    for (const int64_t size : shape) list += (list.empty() ? "" : ", ") + (size == -1 ? "*" : std::to_string(size));
    return "[" + list + "]";
  };
  STD_TORCH_CHECK(false, name, " must have shape ", text(expected), ", found ", text(found));
}

Precision precision_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Precision::float32;
    case ScalarType::BFloat16: return Precision::bfloat16;
    case ScalarType::Half: return Precision::float16;
    default:
      STD_TORCH_CHECK(false, name, " must be float32, bfloat16 or float16 for the native kernel; convert it or use "
                      "the torch backend");
  }
}

Tensor with_dense_rows(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return tensor.size(last) <= 1 || tensor.stride(last) == 1 ? tensor : torch::stable::contiguous(tensor);
}

Tensor as_float32(const Tensor& tensor) {
  precision_of(tensor, "a weight of the scan");
  const bool is_float = tensor.scalar_type() == ScalarType::Float;
  return torch::stable::contiguous(is_float ? tensor : torch::stable::to(tensor, ScalarType::Float));
}

Tensor allocate(const Shape& shape, ScalarType type) { return torch::stable::empty(shape, type); }
Tensor allocate_like(const Tensor& tensor, ScalarType type) { return allocate(shape_of(tensor), type); }
float* floats(const Tensor& tensor) { return static_cast<float*>(tensor.data_ptr()); }

View view_of(const Tensor& tensor, const Axes& axes, int64_t offset) {
  const auto stride = [&](int axis) { return axis < 0 ? int64_t{0} : tensor.stride(axis); };
  View view;
  view.precision = precision_of(tensor, "a tensor of the scan");
  view.batch = stride(axes.batch);
  view.row = stride(axes.row);
  view.column = stride(axes.column);
  view.slot = stride(axes.slot);
  const int64_t size = view.precision == Precision::float32 ? 4 : 2;
  view.data = static_cast<char*>(tensor.data_ptr()) + offset * size;
  return view;
}

SummedOutput::SummedOutput(const Tensor& like, bool summed)
    : result_(allocate_like(like, like.scalar_type())),
      working_(summed && like.scalar_type() != ScalarType::Float ? allocate_like(like, ScalarType::Float) : result_) {}

Tensor SummedOutput::finish() const {
  if (working_.data_ptr() == result_.data_ptr()) return result_;
  const View to = view_of(result_, {-1, -1, -1, -1});
  const float* from = floats(working_);
  run_pieces(result_.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    View piece = to;
    piece.data = static_cast<uint16_t*>(to.data) + begin;
    kernels().convert(from + begin, piece, end - begin);
  });
  return result_;
}

std::vector<ChannelBlock> channel_blocks(int64_t channels, int64_t groups, int lanes) {
  std::vector<ChannelBlock> blocks;
  const int64_t size = channels / groups;
  for (int64_t group = 0; group < groups; ++group) {
    for (int64_t first = 0; first < size; first += lanes) {
      const int used = static_cast<int>(size - first < lanes ? size - first : lanes);
      blocks.push_back({group * size + first, used, static_cast<int>(group)});
    }
  }
  return blocks;
}

std::vector<float> pack_weights(const Problem& problem, const PlainWeights& weights, int lanes) {
  const WeightLayout layout = weight_layout(lanes, problem.state, problem.rank);
  std::vector<float> packed(static_cast<std::size_t>(problem.directions * problem.block_count * layout.size), 0.0f);
  for (int64_t k = 0; k < problem.directions; ++k) {
    for (int64_t b = 0; b < problem.block_count; ++b) {
      float* to = packed.data() + (k * problem.block_count + b) * layout.size;
      for (int lane = 0; lane < problem.blocks[b].lanes; ++lane) {
        const int64_t channel = k * problem.channels + problem.blocks[b].first + lane;
        if (weights.bias != nullptr) to[layout.bias + lane] = weights.bias[channel];
        if (weights.skip != nullptr) to[layout.skip + lane] = weights.skip[channel];
        for (int64_t n = 0; n < problem.state; ++n) {
          to[layout.decay + n * lanes + lane] = weights.decay[channel * problem.state + n] * kLog2E;
        }
        for (int64_t r = 0; r < problem.rank; ++r) {
          to[layout.projection + r * lanes + lane] = weights.projection[channel * problem.rank + r];
        }
      }
    }
  }
  return packed;
}

void unpack_gradients(const Problem& problem, const std::vector<float>& packed, const PlainGradients& to, int lanes) {
  const WeightLayout layout = weight_layout(lanes, problem.state, problem.rank);
  const int64_t item = problem.directions * problem.block_count * layout.size;
  for (int64_t k = 0; k < problem.directions; ++k) {
    for (int64_t b = 0; b < problem.block_count; ++b) {
      const float* from = packed.data() + (k * problem.block_count + b) * layout.size;
      const auto total = [&](int64_t offset) {
        float sum = 0.0f;
        for (int64_t i = 0; i < problem.batch; ++i) sum += from[i * item + offset];
        return sum;
      };
      for (int lane = 0; lane < problem.blocks[b].lanes; ++lane) {
        const int64_t channel = k * problem.channels + problem.blocks[b].first + lane;
        if (to.bias != nullptr) to.bias[channel] = total(layout.bias + lane);
        if (to.skip != nullptr) to.skip[channel] = total(layout.skip + lane);
        for (int64_t n = 0; n < problem.state; ++n) {
          to.decay[channel * problem.state + n] = total(layout.decay + n * lanes + lane);
        }
        for (int64_t r = 0; r < problem.rank; ++r) {
          to.projection[channel * problem.rank + r] = total(layout.projection + r * lanes + lane);
        }
      }
    }
  }
}

}  // namespace mambair
