#include "schedule.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "aligned.h"
#include "choose.h"
#include "sections.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace mambair {
namespace {

// Below this many state updates a second thread costs more than it brings.
constexpr int64_t kUpdatesPerThread = 200'000;

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

struct ScheduledTask {
  Task task;
  int64_t after[3] = {-1, -1, -1};  // earlier entries of the list that must have finished
};

// First blocks of the channel ranges that tasks cover, and the end of the last: as wide as keeps all threads busy, since
// every range reads the pixels' B, C and dt again.
std::vector<int64_t> block_ranges(const Problem& problem, const std::vector<OrderedSection>& sections, int threads) {
  const bool in_pairs = sections.size() > 1 && sections[1].after[0] < 0;  // the second waits for nothing
  const int64_t side_by_side = problem.batch * (in_pairs ? 2 : 1);
  const int64_t blocks = problem.block_count;
  const int64_t range = std::clamp<int64_t>(blocks * side_by_side / threads, 1, std::max<int64_t>(blocks, 1));
  std::vector<int64_t> starts;
  for (int64_t start = 0; start < blocks; start += range) starts.push_back(start);
  starts.push_back(blocks);
  return starts;
}

struct Schedule {
  std::vector<ScheduledTask> tasks;
  std::size_t grain;  // tasks in a row that one thread takes at a time
};

// In the backward pass the channel ranges of a section follow each other. By diagonals of (section, range), whose tasks
// are independent there; `items` batch items innermost.
void schedule_items(const std::vector<OrderedSection>& sections, const std::vector<int64_t>& starts, Pass pass,
                    int64_t first_item, int64_t items, std::vector<ScheduledTask>& tasks) {
  const int64_t ranges = static_cast<int64_t>(starts.size()) - 1, count = static_cast<int64_t>(sections.size());
  std::vector<int64_t> position(count * ranges * items, -1);
  const auto place = [&](int64_t s, int64_t g, int64_t i) -> int64_t& { return position[(s * ranges + g) * items + i]; };
  for (int64_t diagonal = 0; diagonal < count + ranges - 1; ++diagonal) {
    for (int64_t s = std::max<int64_t>(0, diagonal - ranges + 1); s <= diagonal && s < count; ++s) {
      const int64_t g = diagonal - s;
      for (int64_t i = 0; i < items; ++i) {
        ScheduledTask entry{{first_item + i, sections[s].section, starts[g], starts[g + 1]}};
        for (int j = 0; j < 2; ++j) {
          if (sections[s].after[j] >= 0) entry.after[j] = place(sections[s].after[j], g, i);
        }
        if (pass == Pass::backward && g > 0) entry.after[2] = place(s, g - 1, i);
        place(s, g, i) = static_cast<int64_t>(tasks.size());
        tasks.push_back(entry);
      }
    }
  }
}

Schedule schedule(const Problem& problem, Pass pass, int threads) {
  const std::vector<OrderedSection> sections = cut_into_sections(problem, pass);
  const std::vector<int64_t> starts = block_ranges(problem, sections, threads);
  // Where there are enough batch items, each is one thread's from beginning to end, and stays in its caches.
  const bool whole_items = threads == 1 || problem.batch % threads == 0 || problem.batch >= 4 * threads;
  const int64_t items = whole_items ? 1 : problem.batch;
  Schedule result{{}, whole_items ? sections.size() * (starts.size() - 1) : 1};
  for (int64_t b = 0; b < problem.batch; b += items) schedule_items(sections, starts, pass, b, items, result.tasks);
  return result;
}

// Hands out tasks in order; a thread that gets one waits for the tasks it builds on. Those were handed out earlier,
// so they are being run, and waiting ends.
class Queue {
 public:
  explicit Queue(const Schedule& schedule)
      : tasks_(schedule.tasks), grain_(schedule.grain), finished_(tasks_.size()) {
    for (auto& flag : finished_) flag.store(false, std::memory_order_relaxed);
  }

  void work(float* scratch, const std::function<void(const Task&, float*)>& run) {
    for (;;) {
      const std::size_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= tasks_.size()) return;
      for (std::size_t next = begin; next < begin + grain_; ++next) {
        for (const int64_t earlier : tasks_[next].after) {
          if (earlier >= 0) wait_for(static_cast<std::size_t>(earlier));
        }
        run(tasks_[next].task, scratch);
        finished_[next].store(true, std::memory_order_release);
      }
    }
  }

 private:
  void wait_for(std::size_t task) const {
    for (int spin = 0; !finished_[task].load(std::memory_order_acquire); ++spin) {
      if (spin > 100) std::this_thread::yield();
    }
  }

  const std::vector<ScheduledTask>& tasks_;
  const std::size_t grain_;
  std::vector<std::atomic<bool>> finished_;
  std::atomic<std::size_t> next_{0};
};

// Threads worth using for this problem.
int useful_threads(const Problem& problem) {
  const int64_t updates =
      problem.batch * problem.length() * problem.directions * problem.channels * problem.state;
  const int64_t available = static_cast<int64_t>(torch::stable::get_num_threads());
  return static_cast<int>(std::clamp<int64_t>(updates / kUpdatesPerThread, 1, std::max<int64_t>(available, 1)));
}

using Run = std::function<void(const Problem&, const Task&, float*)>;

void run_pass(Problem problem, Pass pass, int64_t scratch_floats, const Run& run) {
  int threads = useful_threads(problem);
  const Schedule tasks = schedule(problem, pass, threads);
  threads = std::min<int>(threads, static_cast<int>(tasks.tasks.size() / std::max<std::size_t>(tasks.grain, 1)));
  if (threads == 0) return;
  const AlignedFloats carry =
      allocate_floats(problem.batch * problem.directions * problem.block_count * problem.state * kernels().lanes);
  problem.carry = carry.get();
  const int64_t stride = (scratch_floats + 15) / 16 * 16;
  const AlignedFloats scratch = allocate_floats(stride * threads);
  Queue queue(tasks);
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t) {
    const FlushDenormals flush;
    queue.work(scratch.get() + begin * stride, [&](const Task& task, float* own) { run(problem, task, own); });
  });
}

}  // namespace

void run_forward(const Problem& problem, const ForwardOutputs& outputs) {
  const KernelTable& table = kernels();
  run_pass(problem, Pass::forward, table.forward_scratch(problem),
           [&](const Problem& p, const Task& task, float* scratch) { table.forward(p, outputs, task, scratch); });
}

void run_backward(const Problem& problem, const BackwardOutputs& outputs) {
  const KernelTable& table = kernels();
  run_pass(problem, Pass::backward, table.backward_scratch(problem),
           [&](const Problem& p, const Task& task, float* scratch) { table.backward(p, outputs, task, scratch); });
}

void run_pieces(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& run) {
  if (count > 0) torch::stable::parallel_for(0, count, grain, run);
}

}  // namespace mambair
