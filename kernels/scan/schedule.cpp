#include "schedule.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace mambair {
namespace {

// Below this many state updates a second thread costs more than it brings.
constexpr int64_t kUpdatesPerThread = 200'000;
// Cutting finer than this evens out the load; cutting coarser reads each pixel fewer times.
constexpr int64_t kTasksPerThread = 5;

// States decay towards zero; arithmetic on numbers below 1e-38 is a hundred times slower on many processors.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned saved_;
#endif
};

struct AlignedFree {
  void operator()(float* memory) const { ::operator delete[](memory, std::align_val_t(64)); }
};
using AlignedFloats = std::unique_ptr<float[], AlignedFree>;

AlignedFloats allocate(int64_t count) {
  const std::size_t bytes = static_cast<std::size_t>(std::max<int64_t>(count, 1)) * sizeof(float);
  return AlignedFloats(static_cast<float*>(::operator new[](bytes, std::align_val_t(64))));
}

// Whether batch items alone keep all threads busy.
bool batch_suffices(const Problem& problem, int threads) {
  return threads == 1 || problem.batch % threads == 0 || problem.batch >= 4 * threads;
}

// First blocks of the channel ranges that tasks cover, and the end of the last.
std::vector<int64_t> block_ranges(const Problem& problem, int threads) {
  int64_t range = problem.block_count;
  if (!batch_suffices(problem, threads)) {
    const int64_t pieces = problem.batch * problem.directions * problem.block_count;
    range = std::clamp<int64_t>(pieces / (threads * kTasksPerThread), 1, problem.block_count);
  }
  std::vector<int64_t> starts;
  for (int64_t start = 0; start < problem.block_count; start += range) starts.push_back(start);
  starts.push_back(problem.block_count);
  return starts;
}

std::vector<ScheduledTask> batch_tasks(const Problem& problem) {
  std::vector<ScheduledTask> tasks;
  for (int64_t b = 0; b < problem.batch; ++b) {
    tasks.push_back({{b, 0, static_cast<int>(problem.directions), 0, problem.block_count}, {-1, -1}});
  }
  return tasks;
}

// Hands out tasks in order; a thread that gets one waits for the tasks it builds on. Those were handed out earlier,
// so they are being run, and waiting ends.
class Queue {
 public:
  explicit Queue(const std::vector<ScheduledTask>& tasks) : tasks_(tasks), finished_(tasks.size()) {
    for (auto& flag : finished_) flag.store(false, std::memory_order_relaxed);
  }

  void work(float* scratch, const std::function<void(const Task&, float*)>& run) {
    for (;;) {
      const std::size_t next = next_.fetch_add(1, std::memory_order_relaxed);
      if (next >= tasks_.size()) return;
      for (const int64_t earlier : tasks_[next].after) {
        if (earlier >= 0) wait_for(static_cast<std::size_t>(earlier));
      }
      run(tasks_[next].task, scratch);
      finished_[next].store(true, std::memory_order_release);
    }
  }

 private:
  void wait_for(std::size_t task) const {
    for (int spin = 0; !finished_[task].load(std::memory_order_acquire); ++spin) {
      if (spin > 100) std::this_thread::yield();
    }
  }

  const std::vector<ScheduledTask>& tasks_;
  std::vector<std::atomic<bool>> finished_;
  std::atomic<std::size_t> next_{0};
};

}  // namespace

int useful_threads(const Problem& problem) {
  const int64_t updates =
      problem.batch * problem.length() * problem.directions * problem.channels * problem.state;
  const int64_t available = static_cast<int64_t>(torch::stable::get_num_threads());
  return static_cast<int>(std::clamp<int64_t>(updates / kUpdatesPerThread, 1, std::max<int64_t>(available, 1)));
}

std::vector<ScheduledTask> forward_tasks(const Problem& problem, int threads) {
  if (batch_suffices(problem, threads)) return batch_tasks(problem);
  const std::vector<int64_t> starts = block_ranges(problem, threads);
  const int64_t ranges = static_cast<int64_t>(starts.size()) - 1;
  const int64_t chains = problem.batch * ranges;
  std::vector<ScheduledTask> tasks;
  for (int k = 0; k < problem.directions; ++k) {
    for (int64_t b = 0; b < problem.batch; ++b) {
      for (int64_t g = 0; g < ranges; ++g) {
        const int64_t previous = k == 0 ? -1 : static_cast<int64_t>(tasks.size()) - chains;
        tasks.push_back({{b, k, k + 1, starts[g], starts[g + 1]}, {previous, -1}});
      }
    }
  }
  return tasks;
}

std::vector<ScheduledTask> backward_tasks(const Problem& problem, int threads) {
  if (batch_suffices(problem, threads)) return batch_tasks(problem);
  const std::vector<int64_t> starts = block_ranges(problem, threads);
  const int64_t ranges = static_cast<int64_t>(starts.size()) - 1;
  const int64_t directions = problem.directions;
  std::vector<int64_t> position(problem.batch * directions * ranges, -1);
  const auto place = [&](int64_t b, int64_t k, int64_t g) -> int64_t& {
    return position[(b * directions + k) * ranges + g];
  };
  std::vector<ScheduledTask> tasks;
  // By diagonals of (direction, range): all tasks of one diagonal are independent.
  for (int64_t diagonal = 0; diagonal < directions + ranges - 1; ++diagonal) {
    for (int64_t b = 0; b < problem.batch; ++b) {
      for (int64_t k = 0; k < directions; ++k) {
        const int64_t g = diagonal - k;
        if (g < 0 || g >= ranges) continue;
        place(b, k, g) = static_cast<int64_t>(tasks.size());
        tasks.push_back({{b, static_cast<int>(k), static_cast<int>(k) + 1, starts[g], starts[g + 1]},
                         {k == 0 ? -1 : place(b, k - 1, g), g == 0 ? -1 : place(b, k, g - 1)}});
      }
    }
  }
  return tasks;
}

int64_t most_blocks(const std::vector<ScheduledTask>& tasks) {
  int64_t most = 0;
  for (const ScheduledTask& entry : tasks) most = std::max(most, entry.task.block_end - entry.task.block_begin);
  return most;
}

void run_tasks(const std::vector<ScheduledTask>& tasks, int threads, int64_t scratch_floats,
               const std::function<void(const Task&, float*)>& run) {
  threads = std::min<int>(threads, static_cast<int>(tasks.size()));
  if (threads == 0) return;
  const int64_t stride = (scratch_floats + 15) / 16 * 16;
  const AlignedFloats scratch = allocate(stride * threads);
  Queue queue(tasks);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) {
    const FlushDenormals flush;
    queue.work(scratch.get() + begin * stride, run);
  });
}

void run_pieces(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& run) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, run);
}

}  // namespace mambair
