// The selective scan as plain loops: one channel after another, expf for each state, no thought of vectors.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cmath>
#include <cstdint>
#include <vector>

using torch::stable::Tensor;

namespace {

const float* data(const Tensor& tensor) { return static_cast<const float*>(tensor.data_ptr()); }

// u, delta [B, K, D, L], A [K, D, N], B, C [B, K, N, L], all contiguous float32.
Tensor plain_scan(const Tensor& u_in, const Tensor& delta_in, const Tensor& A_in, const Tensor& B_in,
                  const Tensor& C_in) {
  const Tensor u = torch::stable::contiguous(u_in), delta = torch::stable::contiguous(delta_in);
  const Tensor A = torch::stable::contiguous(A_in), B = torch::stable::contiguous(B_in);
  const Tensor C = torch::stable::contiguous(C_in);
  const int64_t K = u.size(1), D = u.size(2), L = u.size(3), N = A.size(2);
  Tensor y = torch::stable::empty_like(u);
  float* to = static_cast<float*>(y.data_ptr());
  torch::stable::parallel_for(0, u.size(0) * K * D, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> state(static_cast<std::size_t>(N));
    for (int64_t row = begin; row < end; ++row) {
      const float* x = data(u) + row * L;
      const float* step = data(delta) + row * L;
      const float* rate = data(A) + row % (K * D) * N;
      const float* input = data(B) + row / D * N * L;
      const float* output = data(C) + row / D * N * L;
      for (float& h : state) h = 0.0f;
      for (int64_t t = 0; t < L; ++t) {
        float sum = 0.0f;
        for (int64_t n = 0; n < N; ++n) {
          float& h = state[static_cast<std::size_t>(n)];
          h = expf(step[t] * rate[n]) * h + step[t] * x[t] * input[n * L + t];
          sum += h * output[n * L + t];
        }
        to[row * L + t] = sum;
      }
    }
  });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY(NAMESPACE, library) {
  library.def("plain_scan(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(NAMESPACE, CPU, library) {
  library.impl("plain_scan", TORCH_BOX(&plain_scan));
}
