// Cutting a pass along its tokens. Opposite directions visit the same pixels from both ends: they run side by side and
// meet in the middle, each writing its first half before the other one adds there, so that two threads share an image
// without sharing channels. Which direction comes first at a pixel depends on nothing but the problem.
#pragma once

#include <vector>

#include "problem.h"

namespace mambair {

enum class Pass { forward, backward };

struct OrderedSection {
  Section section;
  int after[2] = {-1, -1};  // earlier sections of the list that must have finished
};

// In an order that one thread may run them in.
std::vector<OrderedSection> cut_into_sections(const Problem& problem, Pass pass);

}  // namespace mambair
