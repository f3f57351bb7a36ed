#include "sections.h"

#include <algorithm>

namespace mambair {
namespace {

// Fewer chunks than this are not worth meeting for.
constexpr int64_t kFewestChunks = 4;
// A direction by itself is cut for the backward pass, where channel ranges follow each other section by section.
constexpr int64_t kPiecesAlone = 4;

class Cutter {
 public:
  Cutter(const Problem& problem, Pass pass) : p_(problem), backward_(pass == Pass::backward) {}

  std::vector<OrderedSection> cut() {
    std::vector<bool> done(p_.directions, false);
    for (int k = 0; k < p_.directions; ++k) {
      if (done[k]) continue;
      int opposite = k + 1;
      while (opposite < p_.directions && (done[opposite] || (p_.order[k] + 2) % 4 != p_.order[opposite])) ++opposite;
      if (opposite < p_.directions && p_.chunks >= kFewestChunks) {
        meet(k, opposite);
        done[opposite] = true;
      } else {
        alone(k);
      }
    }
    return std::move(list_);
  }

 private:
  struct Tokens {
    int64_t begin, end;
  };

  void alone(int direction) {
    const int64_t pieces = backward_ ? std::clamp<int64_t>(p_.chunks, 1, kPiecesAlone) : 1;
    const Tokens added = list_.empty() ? Tokens{0, 0} : Tokens{0, p_.length()};
    for (int64_t i = 0; i < pieces; ++i) {
      const int last = add(direction, p_.chunks * i / pieces, p_.chunks * (i + 1) / pieces, added, last_[0], last_[1]);
      last_[0] = last, last_[1] = -1;
    }
  }

  // Both run over their first half, and then over the half that the other one has been through. A last chunk that is
  // not full leaves some pixels in the middle to neither first half; `one` has them before `other`.
  void meet(int one, int other) {
    const int64_t length = p_.length(), halves = backward_ ? p_.chunks : length / kStateChunk;
    const int64_t half = halves / 2, other_half = halves - half;
    Tokens added{0, length}, other_added{0, length};
    if (list_.empty() && backward_) {
      added = {0, length - (p_.chunks - other_half) * kStateChunk};
      other_added = {0, (p_.chunks - other_half) * kStateChunk};
    } else if (list_.empty()) {
      added = {length - other_half * kStateChunk, length};
      other_added = {other_half * kStateChunk, length};
    }
    const int first = add(one, 0, half, added, last_[0], last_[1]);
    const int other_first = add(other, 0, other_half, other_added, last_[0], last_[1]);
    if (length % kStateChunk == 0) {
      last_[0] = add(one, half, p_.chunks, added, first, other_first);
      last_[1] = add(other, other_half, p_.chunks, other_added, first, other_first);
    } else {
      const int middle = add(one, half, half + 1, added, first, other_first);
      last_[0] = add(one, half + 1, p_.chunks, added, middle, -1);
      last_[1] = add(other, other_half, p_.chunks, other_added, middle, -1);
    }
  }

  // Chunks count in the order in which the pass goes through them.
  int add(int direction, int64_t begin, int64_t end, Tokens added, int after, int also_after) {
    if (backward_) {
      begin = p_.chunks - begin, end = p_.chunks - end;
      std::swap(begin, end);
    }
    list_.push_back({{direction, begin, end, added.begin, added.end}, {after, also_after}});
    return static_cast<int>(list_.size()) - 1;
  }

  const Problem& p_;
  const bool backward_;
  std::vector<OrderedSection> list_;
  int last_[2] = {-1, -1};  // which the next direction has to wait for
};

}  // namespace

std::vector<OrderedSection> cut_into_sections(const Problem& problem, Pass pass) {
  return Cutter(problem, pass).cut();
}

}  // namespace mambair
