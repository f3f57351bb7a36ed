// The scan for AVX-512.
#include "scan/problem.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)

#include "scan/kernels.h"
#include "simd/avx512.h"

namespace mambair {

const KernelTable* avx512_kernels() {
  static constexpr KernelTable table = kernel_table<Avx512>();
  return &table;
}

}  // namespace mambair

#else  // compiled for a processor that has none of it

namespace mambair {

const KernelTable* avx512_kernels() { return nullptr; }

}  // namespace mambair

#endif
