// Exponential, softplus and sigmoid on vectors, accurate enough that a recurrence over many thousand tokens stays
// at float32 rounding. V is one of the simd wrappers.
#pragma once

namespace mambair {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

// Which exponentials 2^x a run over many tokens needs: the smaller their exponents, the less work. The choice depends
// on the data of one channel block only, never on threads.
enum class Range {
  near_one,  // |x| <= 0.25: 2^x - 1 is used, so that a decay of 0.99999 keeps its time constant
  unit,      // -1.25 <= x <= 0: one polynomial
  square,    // -2.5 <= x <= 0: that of half the exponent, squared
  normal,    // |x| <= 120: the power of two is a plain exponent
  any,       // anything: under- and overflow, infinities
};

inline constexpr float kNearOneLimit = 0.25f;
inline constexpr float kUnitLimit = 1.25f;
inline constexpr float kNormalLimit = 120.0f;

// What all steps of a run have in common.
template <class V>
struct StepBounds {
  V largest = V::all(0.0f);   // |delta|
  V smallest = V::all(0.0f);  // delta, or 0

  // A group of vectors; a softplus has given `positive` ones.
  template <class Several>
  void include(Several steps, bool positive) {
    largest = V::max(largest, (positive ? steps : Several::abs(steps)).greatest());
    if (!positive) smallest = V::min(smallest, steps.least());
  }

  Range range(V rate) const {
    const V reach = largest * V::abs(rate);
    const V zero = V::all(0.0f);
    if (V::all_at_most(reach, V::all(kNearOneLimit))) return Range::near_one;
    if (!V::all_at_most(reach, V::all(kNormalLimit))) return Range::any;  // NaN too
    const bool decays = V::all_at_most(rate, zero) && V::all_at_most(zero, smallest);
    if (!decays || !V::all_at_most(reach, V::all(2.0f * kUnitLimit))) return Range::normal;
    return V::all_at_most(reach, V::all(kUnitLimit)) ? Range::unit : Range::square;
  }
};

// Leading coefficients, in memory.
static const float kSlope5 = 1.33426301e-3f;
static const float kUnit6 = 1.02646656e-4f;
static const float kFraction6 = 1.53243149e-4f;
static const float kLog9 = -3.31842015e-3f;

// The polynomials are minimax fits, tied to 1 and to slope ln 2 at 0: their error vanishes with x squared.
// (2^x - 1) / x for |x| <= 0.25, relative error 1.5e-8.
template <class V>
[[gnu::always_inline]] inline V exp2_minus_one_slope(V x) {
  V p = V::fma(V::all_again(kSlope5), x, V::all(9.6298391e-3f));
  p = V::fma(p, x, V::all(5.55040687e-2f));
  p = V::fma(p, x, V::all(2.40226343e-1f));
  return V::fma(p, x, V::all(kLn2));
}

// 2^x for -1.25 <= x <= 0, relative error 1.6e-8.
template <class V>
[[gnu::always_inline]] inline V exp2_unit(V x) {
  V p = V::fma(V::all_again(kUnit6), x, V::all(1.25712273e-3f));
  p = V::fma(p, x, V::all(9.56238247e-3f));
  p = V::fma(p, x, V::all(5.54847494e-2f));
  p = V::fma(p, x, V::all(2.40224034e-1f));
  p = V::fma(p, x, V::all(kLn2));
  return V::fma(p, x, V::all(1.0f));
}

// 2^f for |f| <= 0.5, relative error 3e-9.
template <class V>
[[gnu::always_inline]] inline V exp2_fraction(V f) {
  V p = V::fma(V::all_again(kFraction6), f, V::all(1.33909588e-3f));
  p = V::fma(p, f, V::all(9.61851794e-3f));
  p = V::fma(p, f, V::all(5.55035956e-2f));
  p = V::fma(p, f, V::all(2.40226477e-1f));
  p = V::fma(p, f, V::all(kLn2));
  return V::fma(p, f, V::all(1.0f));
}

// 2^x for any x; -inf gives 0, +inf gives inf, NaN stays NaN.
template <class V>
[[gnu::always_inline]] inline V exp2_any(V x) {
  const V shift = V::all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  x = V::max(V::all(-252.0f), V::min(V::all(252.0f), x));
  const V shifted = x + shift;
  const V n = shifted - shift;
  const V p = exp2_fraction<V>(x - n);
  // Two steps, as n may exceed what one exponent holds; n - n is NaN for NaN, whose payload the steps may destroy.
  const V half_shifted = V::fma(n, V::all(0.5f), shift);
  const V half = half_shifted - shift;
  const V rest = n - half;
  return V::fma(V::scale(V::all(1.0f), half, half_shifted), V::scale(p, rest, rest + shift), n - n);
}

// 2^(step * rate) in every range but near_one. The step comes in two copies, as each is overwritten.
template <Range range, class V>
[[gnu::always_inline]] inline V exp2_product(V step, V same_step, V rate) {
  if constexpr (range == Range::unit) {
    return exp2_unit<V>(step * rate);
  } else if constexpr (range == Range::square) {
    const V root = exp2_unit<V>(step * (rate * V::all(0.5f)));
    return root * root;
  } else if constexpr (range == Range::normal) {
    const V shift = V::all(12582912.0f);
    const V shifted = V::fma(step, rate, shift);
    const V n = shifted - shift;
    return V::scale(exp2_fraction<V>(V::fms(same_step, rate, n)), n, shifted);
  } else {
    return exp2_any<V>(step * rate);
  }
}

// The decays of some vectors of steps in the form their range works with: 2^x - 1 near one, else 2^x.
template <Range range, class V>
[[gnu::always_inline]] inline V decays_of(const float* steps, V rate) {
  if constexpr (range == Range::near_one) {
    const V x = V::load(steps) * rate;
    return exp2_minus_one_slope<V>(x) * x;
  } else if constexpr (range == Range::normal) {
    return exp2_product<range, V>(V::load_again(steps), V::load_again(steps), rate);
  } else {
    const V step = V::load(steps);
    return exp2_product<range, V>(step, step, rate);
  }
}

// decay * value
template <Range range, class V>
[[gnu::always_inline]] inline V decayed(V value, V decay) {
  return range == Range::near_one ? V::fma(value, decay, value) : value * decay;
}

// decay * value + more
template <Range range, class V>
[[gnu::always_inline]] inline V decayed_plus(V value, V decay, V more) {
  const V sum = V::fma(value, decay, more);
  return range == Range::near_one ? value + sum : sum;
}

// log(1 + u) for 0 <= u <= 1: u times a polynomial that is 1 at 0, which keeps full relative accuracy for small u,
// where log of the sum would lose it. Relative error 5.2e-9.
template <class V>
[[gnu::always_inline]] inline V log1p_unit_slope(V u) {
  V p = V::fma(V::all_again(kLog9), u, V::all(2.02043485e-2f));
  p = V::fma(p, u, V::all(-5.76640032e-2f));
  p = V::fma(p, u, V::all(1.06805108e-1f));
  p = V::fma(p, u, V::all(-1.53553694e-1f));
  p = V::fma(p, u, V::all(1.96953923e-1f));
  p = V::fma(p, u, V::all(-2.49585852e-1f));
  p = V::fma(p, u, V::all(3.33305120e-1f));
  p = V::fma(p, u, V::all(-4.99999315e-1f));
  return V::fma(p, u, V::all(1.0f));
}

// log(1 + exp(x)) and, for the backward pass, its derivative 1 / (1 + exp(-x)). NaN stays NaN.
template <class V>
struct Softplus {
  V value;
  V exp_minus_abs;
  V input;

  [[gnu::always_inline]] inline explicit Softplus(V x) : input(x) {
    const V bounded = V::min(V::all(V::Vector::deepest_scale), V::abs(x));
    exp_minus_abs = exp2_product<Range::normal, V>(bounded, bounded, V::all(-kLog2E));
    if constexpr (!V::Vector::scales_to_zero) {
      const V limit = V::all(-V::Vector::deepest_scale);
      exp_minus_abs = V::select_greater(limit, x, V::all(0.0f), exp_minus_abs);
    }
    value = V::fma(log1p_unit_slope<V>(exp_minus_abs), exp_minus_abs, V::max(V::all(0.0f), x));
  }

  V derivative() const {
    const V one = V::all(1.0f);
    return V::divide(V::select_greater(input, V::all(0.0f), one, exp_minus_abs), one + exp_minus_abs);
  }
};

// 1 / (1 + exp(-x)) for any x.
template <class V>
inline V sigmoid(V x) {
  return Softplus<V>(x).derivative();
}

}  // namespace mambair
