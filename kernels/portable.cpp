// The scan for any processor.
#include "scan/kernels.h"
#include "simd/portable.h"

namespace mambair {

const KernelTable* portable_kernels() {
  static constexpr KernelTable table = kernel_table<Portable>();
  return &table;
}

}  // namespace mambair
