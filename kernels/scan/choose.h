// Which instruction set's kernels run.
#pragma once

#include <string>

#include "problem.h"

namespace mambair {

// The kernels in use. At the first call: the one MAMBAIR_ISA names, else the best the processor has.
// Throws std::runtime_error where MAMBAIR_ISA is unknown or not supported here.
const KernelTable& kernels();

// Changes the kernels in use from now on; an empty name chooses as the first call does. Returns their name.
std::string use_kernels(const std::string& name);

// Names of the kernels this processor can run, best first, separated by spaces.
std::string supported_kernels();

}  // namespace mambair
