// The scan for AVX2 with FMA and F16C.
#include "scan/problem.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include "scan/kernels.h"
#include "simd/avx2.h"

namespace mambair {

const KernelTable* avx2_kernels() {
  static constexpr KernelTable table = kernel_table<Avx2>();
  return &table;
}

}  // namespace mambair

#else  // compiled for a processor that has none of it

namespace mambair {

const KernelTable* avx2_kernels() { return nullptr; }

}  // namespace mambair

#endif
