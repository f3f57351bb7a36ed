// The operators mambair::token_layers, depthwise_layers and scaled_sum: checks, packed weights, outputs, threads.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <tuple>

#include "scan/aligned.h"
#include "scan/choose.h"
#include "scan/schedule.h"
#include "scan/tensors.h"

namespace mambair {
namespace {

constexpr int64_t kTokensPerThread = 256;  // fewer are not worth a second thread

using Optional = std::optional<Tensor>;

// The numbers of a float32 tensor of that shape in order; a copy lives as long as this.
class Numbers {
 public:
  Numbers(const Tensor& tensor, const char* name, const Shape& shape) {
    STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, " must be float32 for the fused layers");
    check_shape(tensor, name, shape);
    dense_ = torch::stable::contiguous(tensor);
  }
  Numbers(const Optional& tensor, const char* name, const Shape& shape)
      : Numbers(tensor.has_value() ? Numbers(*tensor, name, shape) : Numbers()) {}

  const float* get() const { return dense_.has_value() ? floats(*dense_) : nullptr; }

 private:
  Numbers() = default;
  Optional dense_;
};

// Rows [first, first + outputs) of a weight [*, inputs] as panels: for each, the biases, then for each input the weights
// of the panel's outputs. Outputs that fill up the last vector have zeros.
AlignedFloats pack_linear(const float* weight, const float* bias, int64_t first, int64_t outputs, int64_t inputs) {
  const int64_t lanes = kernels().lanes;
  const Panels panels(outputs, lanes, kernels().fused.panel_vectors);
  AlignedFloats packed = allocate_floats(panels.vectors * lanes * (inputs + 1));
  float* to = packed.get();
  for (int64_t panel = 0; panel < panels.count; ++panel) {
    const int64_t begin = panels.first_vector(panel) * lanes, end = panels.first_vector(panel + 1) * lanes;
    for (int64_t k = -1; k < inputs; ++k) {
      for (int64_t row = begin; row < end; ++row) {
        const float* from = k < 0 ? bias : weight;
        const bool present = row < outputs && from != nullptr;
        *to++ = !present ? 0.0f : k < 0 ? bias[first + row] : weight[(first + row) * inputs + k];
      }
    }
  }
  return packed;
}

std::tuple<Tensor, Tensor> token_layers(const Tensor& x_in, const Optional& norm_weight, const Optional& norm_bias,
                                        double epsilon, const Optional& gate_in, const Tensor& weight_in,
                                        const Optional& bias_in, const Optional& residual_in, const Optional& scale_in,
                                        bool gated) {
  STD_TORCH_CHECK(x_in.dim() >= 1 && weight_in.dim() == 2, "x must be [*, C] and weight [outputs, C]");
  STD_TORCH_CHECK(norm_weight.has_value() == norm_bias.has_value(), "norm_weight and norm_bias must come together");
  STD_TORCH_CHECK(residual_in.has_value() == scale_in.has_value(), "residual and scale must come together");
  STD_TORCH_CHECK(!gated || (weight_in.size(0) % 2 == 0 && !residual_in.has_value()),
                  "a gated layer has an even number of outputs and no residual");
  const int64_t channels = weight_in.size(1), parts = gated ? 2 : 1, outputs = weight_in.size(0) / parts;
  Shape shape = shape_of(x_in);
  shape.back() = channels;
  const Numbers x(x_in, "x", shape), gate(gate_in, "gate", shape);
  const Numbers weight(weight_in, "weight", {-1, -1}), bias(bias_in, "bias", {outputs * parts});
  const Numbers norm(norm_weight, "norm_weight", {channels}), shift(norm_bias, "norm_bias", {channels});
  shape.back() = outputs;
  const Numbers residual(residual_in, "residual", shape), scale(scale_in, "scale", {outputs});
  const Tensor out = allocate(shape, ScalarType::Float), opened = allocate(gated ? shape : Shape{0}, ScalarType::Float);
  AlignedFloats packed[2];
  Linear linears[2];
  for (int64_t i = 0; i < parts; ++i) {
    packed[i] = pack_linear(weight.get(), bias.get(), i * outputs, outputs, channels);
    linears[i] = {packed[i].get(), channels, outputs, i == 0 ? Activation::none : Activation::silu,
                  floats(i == 0 ? out : opened), residual.get(), scale.get()};
  }
  const int64_t tokens = channels == 0 ? 0 : x_in.numel() / channels;
  const TokenLayers layers{tokens,     channels, x.get(), norm.get(), shift.get(), static_cast<float>(epsilon),
                           gate.get(), linears,  parts};
  const FusedTable& fused = kernels().fused;
  run_pieces(tokens, kTokensPerThread, [&](int64_t begin, int64_t end) {
    fused.token_layers(layers, begin, end, allocate_floats(fused.token_scratch(layers)).get());
  });
  return {out, opened};
}

Activation activation_of(const std::string& name) {
  if (name == "none") return Activation::none;
  if (name == "silu") return Activation::silu;
  STD_TORCH_CHECK(name == "gelu", "activation must be none, silu or gelu, found ", name);
  return Activation::gelu;
}

// [C, 1, 3, 3] and [C] to [10, C]: nine taps and the bias.
AlignedFloats pack_taps(const float* weight, const float* bias, int64_t channels) {
  AlignedFloats packed = allocate_floats(10 * channels);
  for (int64_t c = 0; c < channels; ++c) {
    for (int64_t i = 0; i < 9; ++i) packed[i * channels + c] = weight[c * 9 + i];
    packed[9 * channels + c] = bias == nullptr ? 0.0f : bias[c];
  }
  return packed;
}

std::tuple<Tensor, Tensor> depthwise_layers(const Tensor& x_in, const Tensor& weight_in, const Optional& bias_in,
                                            int64_t dilation, std::string activation, const Optional& linear_weight,
                                            const Optional& linear_bias, bool keep) {
  STD_TORCH_CHECK(x_in.dim() == 4, "x must be [B, H, W, C], found ", x_in.dim(), " axes");
  STD_TORCH_CHECK(dilation >= 1, "dilation must be at least 1, found ", dilation);
  STD_TORCH_CHECK(keep || linear_weight.has_value(), "there is nothing to compute: keep is false, linear_weight is None");
  STD_TORCH_CHECK(!linear_weight.has_value() || linear_weight->dim() == 2, "linear_weight must be [outputs, C]");
  const Shape shape = shape_of(x_in);
  const int64_t channels = shape[3], outputs = linear_weight.has_value() ? linear_weight->size(0) : 0;
  const Numbers x(x_in, "x", shape), weight(weight_in, "weight", {channels, 1, 3, 3}), bias(bias_in, "bias", {channels});
  const Numbers linear(linear_weight, "linear_weight", {outputs, channels}), shift(linear_bias, "linear_bias", {outputs});
  const Tensor y = allocate(keep ? shape : Shape{0}, ScalarType::Float);
  const bool has_linear = linear_weight.has_value();
  const Tensor out = allocate(has_linear ? Shape{shape[0], shape[1], shape[2], outputs} : Shape{0}, ScalarType::Float);
  const AlignedFloats taps = pack_taps(weight.get(), bias.get(), channels);
  const AlignedFloats packed = pack_linear(linear.get(), shift.get(), 0, outputs, channels);
  const Linear product{packed.get(), channels, outputs, Activation::none, floats(out), nullptr, nullptr};
  const DepthwiseLayers layers{shape[0],   shape[1],  shape[2], channels, dilation, x.get(), taps.get(),
                               activation_of(activation), keep ? floats(y) : nullptr, has_linear ? &product : nullptr};
  const FusedTable& fused = kernels().fused;
  const int64_t rows = x_in.numel() == 0 ? 0 : shape[0] * shape[1];
  run_pieces(rows, (kTokensPerThread - 1) / std::max<int64_t>(shape[2], 1) + 1, [&](int64_t begin, int64_t end) {
    fused.depthwise_layers(layers, begin, end, allocate_floats(fused.depthwise_scratch(layers)).get());
  });
  return {y, out};
}

Tensor scaled_sum(const Tensor& x_in, const Tensor& x_scale_in, const Tensor& y_in, const Tensor& y_scale_in) {
  STD_TORCH_CHECK(x_in.dim() >= 2, "x must be [B, *, C], found ", x_in.dim(), " axes");
  const Shape shape = shape_of(x_in);
  const Numbers x(x_in, "x", shape), x_scale(x_scale_in, "x_scale", {shape.front(), shape.back()});
  const Numbers y(y_in, "y", shape), y_scale(y_scale_in, "y_scale", {shape.back()});
  const Tensor out = allocate(shape, ScalarType::Float);
  const int64_t tokens = x_in.numel() == 0 ? 0 : x_in.numel() / shape.back();
  const ScaledSum sum{tokens / std::max<int64_t>(shape.front(), 1), shape.back(), x.get(), x_scale.get(), y.get(),
                      y_scale.get(), floats(out)};
  run_pieces(tokens, kTokensPerThread, [&](int64_t begin, int64_t end) { kernels().fused.scaled_sum(sum, begin, end); });
  return out;
}

}  // namespace
}  // namespace mambair

STABLE_TORCH_LIBRARY_IMPL(mambair, CPU, library) {
  library.impl("token_layers", TORCH_BOX(&mambair::token_layers));
  library.impl("depthwise_layers", TORCH_BOX(&mambair::depthwise_layers));
  library.impl("scaled_sum", TORCH_BOX(&mambair::scaled_sum));
}
