#include "choose.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

namespace mambair {
namespace {

struct Candidate {
  const char* name;
  const KernelTable* table;  // null: not compiled in, or the processor lacks it
};

#if defined(__x86_64__) || defined(__i386__)

// Clang before 17 does not compile __builtin_cpu_supports("f16c").
bool has_f16c() {
  unsigned eax, ebx, ecx, edx;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

#else

bool has_avx2() { return false; }
bool has_avx512() { return false; }

#endif

// Best first. A new instruction set is one line here, one file beside portable.cpp and one simd wrapper.
const std::vector<Candidate>& candidates() {
  static const std::vector<Candidate> list = {
      {"avx512", has_avx512() ? avx512_kernels() : nullptr},
      {"avx2", has_avx2() ? avx2_kernels() : nullptr},
      {"portable", portable_kernels()},
  };
  return list;
}

const KernelTable& find(const std::string& name, const std::string& asked_by) {
  std::string known;
  for (const Candidate& candidate : candidates()) {
    if (candidate.name == name) {
      if (candidate.table != nullptr) return *candidate.table;
      throw std::runtime_error(asked_by + "='" + name + "': this processor or build does not support it; supported: " +
                               supported_kernels());
    }
    known += known.empty() ? candidate.name : std::string(", ") + candidate.name;
  }
  throw std::runtime_error(asked_by + "='" + name + "' is no instruction set of this library; known: " + known);
}

const KernelTable& choose() {
  const char* wanted = std::getenv("MAMBAIR_ISA");
  if (wanted != nullptr && *wanted != '\0') return find(wanted, "MAMBAIR_ISA");
  for (const Candidate& candidate : candidates()) {
    if (candidate.table != nullptr) return *candidate.table;
  }
  throw std::logic_error("the portable kernels are always there");
}

std::atomic<const KernelTable*> in_use{nullptr};

}  // namespace

const KernelTable& kernels() {
  const KernelTable* table = in_use.load(std::memory_order_acquire);
  if (table == nullptr) {
    table = &choose();
    in_use.store(table, std::memory_order_release);
  }
  return *table;
}

std::string use_kernels(const std::string& name) {
  const KernelTable& table = name.empty() ? choose() : find(name, "instruction set");
  in_use.store(&table, std::memory_order_release);
  return table.name;
}

std::string supported_kernels() {
  std::string names;
  for (const Candidate& candidate : candidates()) {
    if (candidate.table != nullptr) names += names.empty() ? candidate.name : std::string(" ") + candidate.name;
  }
  return names;
}

}  // namespace mambair
