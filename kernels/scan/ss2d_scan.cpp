// The operators mambair::ss2d_scan and mambair::ss2d_scan_backward: shapes, views, outputs.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "choose.h"
#include "schedule.h"
#include "tensors.h"

namespace mambair {
namespace {

constexpr Axes kImage{0, 1, 2, -1};       // [B, H, W, D]
constexpr Axes kProjection{0, 1, 2, 3};   // [B, H, W, K, R + 2N]

// The inputs as the kernels see them; owns what the problem points to.
struct Prepared {
  Prepared(const Tensor& x_in, const Tensor& projection_in, const Tensor& dt_weight, const Tensor& dt_bias,
           const Tensor& A, const Tensor& D, const std::vector<int64_t>& directions);

  Tensor x, projection, weight32, bias32, A32, D32;
  std::vector<int> order;
  std::vector<ChannelBlock> blocks;
  std::vector<float> weights;
  Problem problem{};
};

Prepared::Prepared(const Tensor& x_in, const Tensor& projection_in, const Tensor& dt_weight, const Tensor& dt_bias,
                   const Tensor& A, const Tensor& D, const std::vector<int64_t>& directions)
    : x(with_dense_rows(x_in)),
      projection(with_dense_rows(projection_in)),
      weight32(as_float32(dt_weight)),
      bias32(as_float32(dt_bias)),
      A32(as_float32(A)),
      D32(as_float32(D)) {
  STD_TORCH_CHECK(x.dim() == 4, "x must be [B, H, W, D], found ", x.dim(), " axes");
  STD_TORCH_CHECK(A.dim() == 3 && dt_weight.dim() == 3, "A must be [K, D, N] and dt_weight [K, D, R]");
  const int64_t K = static_cast<int64_t>(directions.size());
  STD_TORCH_CHECK(K >= 1, "directions must name at least one of 0, 1, 2, 3");
  Problem& p = problem;
  p.batch = x.size(0), p.height = x.size(1), p.width = x.size(2), p.channels = x.size(3);
  p.state = A.size(2), p.rank = dt_weight.size(2), p.directions = K;
  STD_TORCH_CHECK(p.state >= 1 && p.rank >= 1, "N and R must be at least 1");
  check_shape(projection, "projection", {p.batch, p.height, p.width, K, p.rank + 2 * p.state});
  check_shape(dt_weight, "dt_weight", {K, p.channels, p.rank});
  check_shape(dt_bias, "dt_bias", {K, p.channels});
  check_shape(A, "A", {K, p.channels, p.state});
  check_shape(D, "D", {K, p.channels});
  for (const int64_t direction : directions) {
    STD_TORCH_CHECK(direction >= 0 && direction <= 3, "directions must be of 0, 1, 2, 3, found ", direction);
    order.push_back(static_cast<int>(direction));
  }
  const int lanes = kernels().lanes;
  blocks = channel_blocks(p.channels, 1, lanes);
  p.order = order.data();
  p.softplus = true;
  p.blocks = blocks.data();
  p.block_count = static_cast<int64_t>(blocks.size());
  p.chunks = (p.length() + kStateChunk - 1) / kStateChunk;
  weights = pack_weights(p, {floats(bias32), floats(D32), floats(A32), floats(weight32)}, lanes);
  p.weights = weights.data();
  p.x = view_of(x, kImage);
  p.dt = view_of(projection, kProjection);
  p.input_matrix = view_of(projection, kProjection, p.rank);
  p.output_matrix = view_of(projection, kProjection, p.rank + p.state);
}

std::tuple<Tensor, Tensor> ss2d_scan(const Tensor& x, const Tensor& projection, const Tensor& dt_weight,
                                     const Tensor& dt_bias, const Tensor& A, const Tensor& D,
                                     std::vector<int64_t> directions, bool save_states) {
  Prepared prepared(x, projection, dt_weight, dt_bias, A, D, directions);
  Problem& p = prepared.problem;
  const Tensor states = allocate(
      save_states ? Shape{p.batch, p.directions, p.chunks, p.state, p.channels} : Shape{0}, ScalarType::Float);
  p.states = save_states ? floats(states) : nullptr;
  const SummedOutput y(x, p.directions > 1);
  const ForwardOutputs outputs{view_of(y.working(), kImage), nullptr};
  run_forward(p, outputs);
  return {y.finish(), states};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> ss2d_scan_backward(
    const Tensor& grad_y_in, const Tensor& x, const Tensor& projection, const Tensor& dt_weight,
    const Tensor& dt_bias, const Tensor& A, const Tensor& D, const Tensor& states, std::vector<int64_t> directions) {
  Prepared prepared(x, projection, dt_weight, dt_bias, A, D, directions);
  Problem& p = prepared.problem;
  const Tensor grad_y = with_dense_rows(grad_y_in);
  check_shape(grad_y, "grad_y", shape_of(x));
  check_shape(states, "states", {p.batch, p.directions, p.chunks, p.state, p.channels});
  const Tensor states32 = as_float32(states);
  p.states = floats(states32);

  const int lanes = kernels().lanes;
  const SummedOutput grad_x(x, p.directions > 1), grad_projection(projection, true);
  std::vector<float> grad_weights(static_cast<std::size_t>(p.batch) * prepared.weights.size(), 0.0f);
  BackwardOutputs outputs{};
  outputs.grad_y = view_of(grad_y, kImage);
  outputs.x = view_of(grad_x.working(), kImage);
  outputs.dt = view_of(grad_projection.working(), kProjection);
  outputs.input_matrix = view_of(grad_projection.working(), kProjection, p.rank);
  outputs.output_matrix = view_of(grad_projection.working(), kProjection, p.rank + p.state);
  outputs.weights = grad_weights.data();
  run_backward(p, outputs);
  const SummedOutput weight(dt_weight, true), bias(dt_bias, true), decay(A, true), skip(D, true);
  unpack_gradients(p, grad_weights,
                   {floats(bias.working()), floats(skip.working()), floats(decay.working()), floats(weight.working())},
                   lanes);
  return {grad_x.finish(), grad_projection.finish(), weight.finish(), bias.finish(), decay.finish(), skip.finish()};
}

}  // namespace
}  // namespace mambair

STABLE_TORCH_LIBRARY_IMPL(mambair, CPU, library) {
  library.impl("ss2d_scan", TORCH_BOX(&mambair::ss2d_scan));
  library.impl("ss2d_scan_backward", TORCH_BOX(&mambair::ss2d_scan_backward));
}
