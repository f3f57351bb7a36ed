// Operators about the library itself: which kernels run, and the benchmark's unit of cost.
#include <torch/csrc/stable/library.h>

#include <string>

#include "choose.h"

namespace mambair {
namespace {

// Chooses the kernels by name ("" = by MAMBAIR_ISA, else the best) and returns the name in use.
std::string native_isa(std::string name) { return use_kernels(name); }

std::string native_supported_isas() { return supported_kernels(); }

double native_exponentials(int64_t thousands) { return kernels().exponentials(thousands); }

}  // namespace
}  // namespace mambair

STABLE_TORCH_LIBRARY_FRAGMENT(mambair, library) {
  library.def("native_isa(str name) -> str");
  library.def("native_supported_isas() -> str");
  library.def("native_exponentials(int thousands) -> float");
}

STABLE_TORCH_LIBRARY_IMPL(mambair, CompositeExplicitAutograd, library) {
  library.impl("native_isa", TORCH_BOX(&mambair::native_isa));
  library.impl("native_supported_isas", TORCH_BOX(&mambair::native_supported_isas));
  library.impl("native_exponentials", TORCH_BOX(&mambair::native_exponentials));
}
