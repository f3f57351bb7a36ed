// Spreading tasks over torch's threads. Which thread runs a task, and how work is cut into tasks, may depend on the
// number of threads; results do not, because every sum has one order: directions as listed, channel blocks ascending,
// tokens along the scan, batch items ascending. Tasks that add to the same numbers are ordered by `after`.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "problem.h"

namespace mambair {

struct ScheduledTask {
  Task task;
  int64_t after[2] = {-1, -1};  // earlier entries of the list that must have finished
};

// Forward: the directions of one channel block follow each other.
std::vector<ScheduledTask> forward_tasks(const Problem& problem, int threads);

// Backward: besides, the channel blocks of one direction follow each other.
std::vector<ScheduledTask> backward_tasks(const Problem& problem, int threads);

// Threads worth using for this problem.
int useful_threads(const Problem& problem);

// Runs all tasks; `scratch_floats` is what one thread needs. `run` must not throw.
void run_tasks(const std::vector<ScheduledTask>& tasks, int threads, int64_t scratch_floats,
               const std::function<void(const Task&, float*)>& run);

// Splits [0, count) into even pieces of at least `grain` and runs them on torch's threads.
void run_pieces(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& run);

// The largest number of channel blocks in any task.
int64_t most_blocks(const std::vector<ScheduledTask>& tasks);

}  // namespace mambair
