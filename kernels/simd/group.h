// Several vectors that go through the same arithmetic side by side. One exponential is a chain of ten dependent
// instructions; a processor only keeps busy when the instructions of several chains alternate. A tree of members
// instead of an array, because compilers keep members in registers and arrays in memory.
#pragma once

namespace mambair {

template <class V, int count>
struct Group {
  using Vector = V;
  using Half = Group<V, count / 2>;
  static_assert(count % 2 == 0);

  Half low, high;

  static Group all(float number) { return {Half::all(number), Half::all(number)}; }
  static Group all(V vector) { return {Half::all(vector), Half::all(vector)}; }
  static Group all_again(const float& number) { return {Half::all_again(number), Half::all_again(number)}; }
  // Vector i is what load(i) gives.
  template <class Load>
  static Group each(const Load& load, int first = 0) {
    return {Half::each(load, first), Half::each(load, first + count / 2)};
  }
  // Neighbouring vectors.
  static Group load(const float* from) { return {Half::load(from), Half::load(behind_half(from))}; }
  static Group load_again(const float* from) { return {Half::load_again(from), Half::load_again(behind_half(from))}; }
  // Each vector filled with one number; these lie `stride` apart.
  static Group all_of(const float* from, long stride) {
    return {Half::all_of(from, stride), Half::all_of(from + count / 2 * stride, stride)};
  }
  void store(float* to) const {
    low.store(to);
    high.store(to + count / 2 * V::lanes);
  }
  V greatest() const { return V::max(low.greatest(), high.greatest()); }
  V least() const { return V::min(low.least(), high.least()); }
  V operator[](int i) const { return i < count / 2 ? low[i] : high[i - count / 2]; }

  friend Group operator+(Group a, Group b) { return {a.low + b.low, a.high + b.high}; }
  friend Group operator-(Group a, Group b) { return {a.low - b.low, a.high - b.high}; }
  friend Group operator*(Group a, Group b) { return {a.low * b.low, a.high * b.high}; }
  static Group fma(Group a, Group b, Group c) {
    return {Half::fma(a.low, b.low, c.low), Half::fma(a.high, b.high, c.high)};
  }
  static Group fms(Group a, Group b, Group c) {
    return {Half::fms(a.low, b.low, c.low), Half::fms(a.high, b.high, c.high)};
  }
  static Group divide(Group a, Group b) { return {Half::divide(a.low, b.low), Half::divide(a.high, b.high)}; }
  static Group abs(Group a) { return {Half::abs(a.low), Half::abs(a.high)}; }
  static Group max(Group a, Group b) { return {Half::max(a.low, b.low), Half::max(a.high, b.high)}; }
  static Group min(Group a, Group b) { return {Half::min(a.low, b.low), Half::min(a.high, b.high)}; }
  static Group select_greater(Group a, Group b, Group yes, Group no) {
    return {Half::select_greater(a.low, b.low, yes.low, no.low),
            Half::select_greater(a.high, b.high, yes.high, no.high)};
  }
  static Group scale(Group p, Group n, Group shifted) {
    return {Half::scale(p.low, n.low, shifted.low), Half::scale(p.high, n.high, shifted.high)};
  }

 private:
  static const float* behind_half(const float* from) { return from + count / 2 * V::lanes; }
};

template <class V>
struct Group<V, 1> {
  using Vector = V;
  V value;

  static Group all(float number) { return {V::all(number)}; }
  static Group all(V vector) { return {vector}; }
  static Group all_again(const float& number) { return {V::all_again(number)}; }
  template <class Load>
  static Group each(const Load& load, int first = 0) {
    return {load(first)};
  }
  static Group load(const float* from) { return {V::load(from)}; }
  static Group load_again(const float* from) { return {V::load_again(from)}; }
  static Group all_of(const float* from, long) { return {V::all(*from)}; }
  void store(float* to) const { value.store(to); }
  V greatest() const { return value; }
  V least() const { return value; }
  V operator[](int) const { return value; }

  friend Group operator+(Group a, Group b) { return {a.value + b.value}; }
  friend Group operator-(Group a, Group b) { return {a.value - b.value}; }
  friend Group operator*(Group a, Group b) { return {a.value * b.value}; }
  static Group fma(Group a, Group b, Group c) { return {V::fma(a.value, b.value, c.value)}; }
  static Group fms(Group a, Group b, Group c) { return {V::fms(a.value, b.value, c.value)}; }
  static Group divide(Group a, Group b) { return {V::divide(a.value, b.value)}; }
  static Group abs(Group a) { return {V::abs(a.value)}; }
  static Group max(Group a, Group b) { return {V::max(a.value, b.value)}; }
  static Group min(Group a, Group b) { return {V::min(a.value, b.value)}; }
  static Group select_greater(Group a, Group b, Group yes, Group no) {
    return {V::select_greater(a.value, b.value, yes.value, no.value)};
  }
  static Group scale(Group p, Group n, Group shifted) { return {V::scale(p.value, n.value, shifted.value)}; }
};

}  // namespace mambair
