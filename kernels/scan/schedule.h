// Running a pass on torch's threads, as tasks of (batch item, section, channel blocks). Which thread runs a task, and how
// channels are spread over tasks, may depend on the number of threads; results do not, because every sum has one order:
// directions at a pixel as the sections say, channel blocks ascending, tokens along the scan, batch items ascending. A
// task that builds on another one, or adds to the same numbers, waits for it.
#pragma once

#include <cstdint>
#include <functional>

#include "problem.h"

namespace mambair {

void run_forward(const Problem& problem, const ForwardOutputs& outputs);
void run_backward(const Problem& problem, const BackwardOutputs& outputs);

// Splits [0, count) into even pieces of at least `grain` and runs them on torch's threads.
void run_pieces(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& run);

}  // namespace mambair
