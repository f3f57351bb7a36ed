// The operators mambair::selective_scan and mambair::selective_scan_backward: shapes, views, outputs.
#include <torch/csrc/stable/library.h>
#include <torch/headeronly/util/Exception.h>

#include <tuple>

#include "choose.h"
#include "schedule.h"
#include "tensors.h"

namespace mambair {
namespace {

using MaybeTensor = std::optional<Tensor>;

// A sequence is an image of one row.
constexpr Axes kChannels{0, -1, 1, -1};  // [B, L, D]
constexpr Axes kMatrix{0, -1, 1, 2};     // [B, L, G, N]

struct Inputs {
  const Tensor &u, &delta, &A, &B, &C;
  const MaybeTensor &D, &z, &delta_bias, &initial_state, &index;
};

// The inputs as the kernels see them; owns what the problem points to.
struct Prepared {
  Prepared(const Inputs& inputs, bool softplus);

  Tensor u, delta, B, C, A32;
  MaybeTensor D32, z, bias32, initial32, index;
  const int order[1] = {static_cast<int>(Direction::rows)};
  std::vector<ChannelBlock> blocks;
  std::vector<float> weights;
  Problem problem{};

 private:
  void check() const;
};

MaybeTensor dense(const MaybeTensor& tensor) { return tensor ? MaybeTensor(with_dense_rows(*tensor)) : std::nullopt; }
MaybeTensor float32(const MaybeTensor& tensor) { return tensor ? MaybeTensor(as_float32(*tensor)) : std::nullopt; }
float* floats_or_null(const MaybeTensor& tensor) { return tensor ? floats(*tensor) : nullptr; }

Prepared::Prepared(const Inputs& inputs, bool softplus)
    : u(with_dense_rows(inputs.u)),
      delta(with_dense_rows(inputs.delta)),
      B(with_dense_rows(inputs.B)),
      C(with_dense_rows(inputs.C)),
      A32(as_float32(inputs.A)),
      D32(float32(inputs.D)),
      z(dense(inputs.z)),
      bias32(float32(inputs.delta_bias)),
      initial32(float32(inputs.initial_state)) {
  STD_TORCH_CHECK(u.dim() == 3 && A32.dim() == 2 && B.dim() == 4, "u must be [B, L, D], A [D, N] and B [B, L, G, N]");
  Problem& p = problem;
  p.batch = u.size(0), p.height = 1, p.width = u.size(1), p.channels = u.size(2);
  p.state = A32.size(1), p.rank = 0, p.directions = 1;
  if (inputs.index) index = torch::stable::contiguous(*inputs.index);
  check();
  const int lanes = kernels().lanes;
  blocks = channel_blocks(p.channels, B.size(2), lanes);
  p.order = order;
  p.index = index ? static_cast<const int64_t*>(index->data_ptr()) : nullptr;
  p.softplus = softplus;
  p.blocks = blocks.data();
  p.block_count = static_cast<int64_t>(blocks.size());
  p.chunks = (p.length() + kStateChunk - 1) / kStateChunk;
  weights = pack_weights(p, {floats_or_null(bias32), floats_or_null(D32), floats(A32), nullptr}, lanes);
  p.weights = weights.data();
  p.x = view_of(u, kChannels);
  p.delta = view_of(delta, kChannels);
  p.input_matrix = view_of(B, kMatrix);
  p.output_matrix = view_of(C, kMatrix);
  if (z) p.gate = view_of(*z, kChannels);
  p.initial_state = floats_or_null(initial32);
}

// Reading outside of a tensor, or leaving a place of the output unwritten, must be impossible.
void check_permutation(const Tensor& index) {
  const int64_t batch = index.size(0), length = index.size(1);
  const int64_t* from = static_cast<const int64_t*>(index.data_ptr());
  std::vector<bool> seen;
  for (int64_t b = 0; b < batch; ++b) {
    seen.assign(static_cast<std::size_t>(length), false);
    for (int64_t t = 0; t < length; ++t) {
      const int64_t pixel = from[b * length + t];
      const bool fits = pixel >= 0 && pixel < length && !seen[static_cast<std::size_t>(pixel)];
      STD_TORCH_CHECK(fits, "index must hold every number from 0 to L - 1 once in each row; index[", b, ", ", t,
                      "] is ", pixel, pixel >= 0 && pixel < length ? ", for the second time" : "");
      seen[static_cast<std::size_t>(pixel)] = true;
    }
  }
}

void Prepared::check() const {
  const Problem& p = problem;
  const int64_t groups = B.size(2);
  STD_TORCH_CHECK(p.state >= 1, "N must be at least 1");
  STD_TORCH_CHECK(groups >= 1 && p.channels % groups == 0, "D = ", p.channels, " must be a multiple of G = ", groups);
  check_shape(delta, "delta", {p.batch, p.width, p.channels});
  check_shape(A32, "A", {p.channels, p.state});
  check_shape(B, "B", {p.batch, p.width, groups, p.state});
  check_shape(C, "C", {p.batch, p.width, groups, p.state});
  if (D32) check_shape(*D32, "D", {p.channels});
  if (z) check_shape(*z, "z", {p.batch, p.width, p.channels});
  if (bias32) check_shape(*bias32, "delta_bias", {p.channels});
  if (initial32) check_shape(*initial32, "initial_state", {p.batch, p.channels, p.state});
  if (index) {
    STD_TORCH_CHECK(index->scalar_type() == ScalarType::Long, "index must be int64");
    check_shape(*index, "index", {p.batch, p.width});
    check_permutation(*index);
  }
}

std::tuple<Tensor, Tensor, Tensor> selective_scan(const Tensor& u, const Tensor& delta, const Tensor& A,
                                                  const Tensor& B, const Tensor& C, const MaybeTensor& D,
                                                  const MaybeTensor& z, const MaybeTensor& delta_bias,
                                                  const MaybeTensor& initial_state, const MaybeTensor& index,
                                                  bool delta_softplus, bool save_states) {
  Prepared prepared({u, delta, A, B, C, D, z, delta_bias, initial_state, index}, delta_softplus);
  Problem& p = prepared.problem;
  const Tensor states =
      allocate(save_states ? Shape{p.batch, p.chunks, p.state, p.channels} : Shape{0}, ScalarType::Float);
  p.states = save_states ? floats(states) : nullptr;
  const Tensor y = allocate_like(u, u.scalar_type());
  const Tensor last_state = allocate({p.batch, p.channels, p.state}, ScalarType::Float);
  const ForwardOutputs outputs{view_of(y, kChannels), floats(last_state)};
  run_forward(p, outputs);
  return {y, last_state, states};
}

// The gradient of an optional input: none for an input that is not there.
struct OptionalGradient {
  OptionalGradient(const MaybeTensor& input, const Tensor& like, bool summed)
      : present(input.has_value()), output(present ? *input : allocate({0}, like.scalar_type()), summed) {}
  float* working() const { return present ? floats(output.working()) : nullptr; }

  bool present;
  SummedOutput output;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> selective_scan_backward(
    const Tensor& grad_y_in, const MaybeTensor& grad_last_state, const Tensor& u, const Tensor& delta,
    const Tensor& A, const Tensor& B, const Tensor& C, const MaybeTensor& D, const MaybeTensor& z,
    const MaybeTensor& delta_bias, const MaybeTensor& initial_state, const MaybeTensor& index, const Tensor& states,
    bool delta_softplus) {
  Prepared prepared({u, delta, A, B, C, D, z, delta_bias, initial_state, index}, delta_softplus);
  Problem& p = prepared.problem;
  const Tensor grad_y = with_dense_rows(grad_y_in), states32 = as_float32(states);
  const MaybeTensor grad_last32 = float32(grad_last_state);
  check_shape(grad_y, "grad_y", shape_of(u));
  check_shape(states32, "states", {p.batch, p.chunks, p.state, p.channels});
  if (grad_last32) check_shape(*grad_last32, "grad_last_state", {p.batch, p.channels, p.state});
  p.states = floats(states32);

  const SummedOutput grad_u(u, false), grad_delta(delta, false), grad_B(B, true), grad_C(C, true), grad_A(A, true);
  const OptionalGradient grad_D(D, u, true), grad_z(z, u, false), grad_bias(delta_bias, u, true),
      grad_initial(initial_state, u, true);
  std::vector<float> grad_weights(static_cast<std::size_t>(p.batch) * prepared.weights.size(), 0.0f);
  BackwardOutputs outputs{};
  outputs.grad_y = view_of(grad_y, kChannels);
  outputs.grad_last_state = floats_or_null(grad_last32);
  outputs.x = view_of(grad_u.working(), kChannels);
  outputs.delta = view_of(grad_delta.working(), kChannels);
  outputs.input_matrix = view_of(grad_B.working(), kMatrix);
  outputs.output_matrix = view_of(grad_C.working(), kMatrix);
  if (grad_z.present) outputs.gate = view_of(grad_z.output.working(), kChannels);
  outputs.initial_state = grad_initial.working();
  outputs.weights = grad_weights.data();
  run_backward(p, outputs);
  unpack_gradients(p, grad_weights, {grad_bias.working(), grad_D.working(), floats(grad_A.working()), nullptr},
                   kernels().lanes);
  return {grad_u.finish(), grad_delta.finish(),    grad_A.finish(),
          grad_B.finish(), grad_C.finish(),        grad_D.output.finish(),
          grad_z.output.finish(), grad_bias.output.finish(), grad_initial.output.finish()};
}

}  // namespace
}  // namespace mambair

STABLE_TORCH_LIBRARY_IMPL(mambair, CPU, library) {
  library.impl("selective_scan", TORCH_BOX(&mambair::selective_scan));
  library.impl("selective_scan_backward", TORCH_BOX(&mambair::selective_scan_backward));
}
