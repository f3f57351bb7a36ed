// Exponential, softplus and sigmoid on vectors, accurate enough that a recurrence over many thousand tokens stays
// at float32 rounding. V is one of the simd wrappers.
#pragma once

namespace mambair {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kLn2 = 0.693147180559945309f;

// How large the exponents of a run of exponentials can become. Where `tiny` applies it equals `normal` bit for bit.
enum class Range {
  tiny,    // |x| <= 0.5: no splitting into whole and fraction
  normal,  // |x| <= kNormalLimit: the power of two is a plain exponent
  any,     // anything: under- and overflow, infinities
};

inline constexpr float kTinyLimit = 0.5f;
inline constexpr float kNormalLimit = 120.0f;

// 2^f for |f| <= 0.5. One at f = 0 exactly and with the exact slope there, so the error is proportional to f^2: a
// decay of 0.9999 must not lose its time constant. Relative error 1.05e-7 at worst before rounding.
template <class V>
inline V exp2_fraction(V f) {
  V p = V::fma(f, V::all(1.3300605351105332e-3f), V::all(9.669691324234009e-3f));
  p = V::fma(p, f, V::all(5.550558492541313e-2f));
  p = V::fma(p, f, V::all(2.4022282660007477e-1f));
  p = V::fma(p, f, V::all(kLn2));
  return V::fma(p, f, V::all(1.0f));
}

// 2^x for any x; -inf gives 0, +inf gives inf, NaN stays NaN.
template <class V>
inline V exp2_any(V x) {
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

// 2^(step * rate)
template <Range range, class V>
inline V exp2_product(V step, V rate) {
  if constexpr (range == Range::tiny) {
    return exp2_fraction<V>(step * rate);
  } else if constexpr (range == Range::normal) {
    const V shift = V::all(12582912.0f);
    const V shifted = V::fma(step, rate, shift);
    const V n = shifted - shift;
    return V::scale(exp2_fraction<V>(V::fms(step, rate, n)), n, shifted);
  } else {
    return exp2_any<V>(step * rate);
  }
}

// log(1 + exp(x)) and, for the backward pass, its derivative 1 / (1 + exp(-x)). log1p(u) = 2 atanh(u / (2 + u))
// keeps full relative accuracy for small results, where log(1 + u) would lose it. NaN stays NaN.
template <class V>
struct Softplus {
  V value;
  V exp_minus_abs;
  V input;

  explicit Softplus(V x) : input(x) {
    const V bounded = V::min(V::all(83.0f), V::abs(x));
    const V u = exp2_product<Range::normal, V>(bounded, V::all(-kLog2E));
    exp_minus_abs = V::select_greater(V::all(-83.0f), x, V::all(0.0f), u);
    const V s = exp_minus_abs / (exp_minus_abs + V::all(2.0f));
    const V z = s * s;  // at most 1/9
    V p = V::fma(z, V::all(kAtanh9), V::all(kAtanh7));
    p = V::fma(p, z, V::all(kAtanh5));
    p = V::fma(p, z, V::all(kAtanh3));
    value = V::fma(s + s, V::fma(p, z, V::all(1.0f)), V::max(V::all(0.0f), x));
  }

  V derivative() const {
    const V one = V::all(1.0f);
    return V::select_greater(input, V::all(0.0f), one, exp_minus_abs) / (one + exp_minus_abs);
  }

 private:
  // atanh(s) / s = 1 + z (k3 + z (k5 + ...)), relative error 4.5e-9 for z = s^2 in [0, 1/9]
  static constexpr float kAtanh3 = 0.3333320915699005f, kAtanh5 = 0.2001076340675354f,
                         kAtanh7 = 0.14000903069972992f, kAtanh9 = 0.1400599479675293f;
};

// 1 / (1 + exp(-x)) for any x.
template <class V>
inline V sigmoid(V x) {
  return Softplus<V>(x).derivative();
}

}  // namespace mambair
