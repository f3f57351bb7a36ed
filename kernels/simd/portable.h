// Four lanes of float32 in the compilers' own vector type (GCC, Clang): SSE2 on x86-64, NEON on arm64, plain code
// elsewhere. A new instruction set starts as a copy of this interface; see README.md.
#pragma once

#include <cstdint>
#include <cstring>

namespace mambair {

struct Portable {
  static constexpr int lanes = 4;
  static constexpr int forward_tokens = 32;
  static constexpr int backward_tokens = 64;  // whose working set fits first-level cache in the backward scan
  static constexpr int tile_rows = 4, tile_vectors = 2;  // of a product, whose sums fill the registers
  static constexpr int chains = 4;  // exponentials worth computing side by side
  static constexpr const char* name = "portable";
  using Vector = Portable;
  // How far below 0 the exponent of e may be for scale; below that, results are to be set to 0.
  static constexpr float deepest_scale = 83.0f;
  static constexpr bool scales_to_zero = false;

  typedef float Floats __attribute__((vector_size(16)));
  typedef int32_t Bits __attribute__((vector_size(16)));

  Floats value;

  static Portable load(const float* from) {
    Portable loaded;
    std::memcpy(&loaded.value, from, sizeof(Floats));
    return loaded;
  }
  // Where registers are overwritten by a fused multiply-add these read memory once more; here they are plain loads.
  static Portable load_again(const float* from) { return load(from); }
  static Portable all_again(const float& number) { return all(number); }
  static Portable load_some(const float* from, int count) {
    Portable loaded = all(0.0f);
    for (int i = 0; i < count; ++i) loaded.value[i] = from[i];
    return loaded;
  }
  void store(float* to) const { std::memcpy(to, &value, sizeof(Floats)); }
  void store_some(float* to, int count) const {
    for (int i = 0; i < count; ++i) to[i] = value[i];
  }
  static Portable all(float number) { return {Floats{number, number, number, number}}; }

  static Portable load_bfloat16(const uint16_t* from, int count) {
    Portable loaded = all(0.0f);
    for (int i = 0; i < count; ++i) loaded.value[i] = from_bits(static_cast<uint32_t>(from[i]) << 16);
    return loaded;
  }
  static Portable load_float16(const uint16_t* from, int count) {
    Portable loaded = all(0.0f);
    for (int i = 0; i < count; ++i) loaded.value[i] = float16_to_float(from[i]);
    return loaded;
  }
  void store_bfloat16(uint16_t* to, int count) const {
    for (int i = 0; i < count; ++i) {
      const uint32_t bits = to_bits(value[i]);
      const bool is_nan = value[i] != value[i];
      to[i] = is_nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    }
  }
  void store_float16(uint16_t* to, int count) const {
    for (int i = 0; i < count; ++i) to[i] = float_to_float16(value[i]);
  }

  friend Portable operator+(Portable a, Portable b) { return {a.value + b.value}; }
  friend Portable operator-(Portable a, Portable b) { return {a.value - b.value}; }
  friend Portable operator*(Portable a, Portable b) { return {a.value * b.value}; }
  static Portable fma(Portable a, Portable b, Portable c) { return {a.value * b.value + c.value}; }
  static Portable fms(Portable a, Portable b, Portable c) { return {a.value * b.value - c.value}; }
  static Portable abs(Portable a) { return {(Floats)((Bits)a.value & 0x7fffffff)}; }
  // A NaN in the second argument is kept, one in the first is dropped.
  static Portable max(Portable a, Portable b) { return {a.value > b.value ? a.value : b.value}; }
  static Portable min(Portable a, Portable b) { return {a.value < b.value ? a.value : b.value}; }
  // False in a lane whenever a NaN takes part.
  static bool all_at_most(Portable a, Portable b) {
    const Bits holds = a.value <= b.value;
    return (holds[0] & holds[1] & holds[2] & holds[3]) != 0;
  }
  // Lanes where a > b take `yes`, the others (NaN too) `no`.
  static Portable select_greater(Portable a, Portable b, Portable yes, Portable no) {
    return {a.value > b.value ? yes.value : no.value};
  }
  // p * 2^n for |n| <= 126, where shifted = n + 1.5 * 2^23: its low mantissa bits are n, moved up to the exponent.
  static Portable scale(Portable p, Portable /*n*/, Portable shifted) {
    return {(Floats)((Bits)p.value + ((Bits)shifted.value << 23))};
  }
  static Portable divide(Portable a, Portable b) { return {a.value / b.value}; }
  // Transposes a matrix of 2 x 2 blocks of `distance` lanes, given as the rows a and b: the odd blocks of a change
  // places with the even blocks of b.
  template <int distance>
  static void exchange(Portable& a, Portable& b) {
    const Floats x = a.value, y = b.value;
    a.value = distance == 2 ? Floats{x[0], x[1], y[0], y[1]} : Floats{x[0], y[0], x[2], y[2]};
    b.value = distance == 2 ? Floats{x[2], x[3], y[2], y[3]} : Floats{x[1], y[1], x[3], y[3]};
  }

  // One round of the sums over lanes of `count` vectors: low and high hold those of count / 2 vectors each, in turns
  // over their lanes; the result holds those of all. After log2(lanes) rounds lane i is the sum of vector i.
  template <int count>
  static Portable merge(Portable low, Portable high) {
    const Floats a = low.value, b = high.value;
    if constexpr (count == 2) return {Floats{a[0], b[1], a[2], b[3]} + Floats{a[1], b[0], a[3], b[2]}};
    return {Floats{a[0], a[1], b[2], b[3]} + Floats{a[2], a[3], b[0], b[1]}};
  }

 private:
  static float from_bits(uint32_t bits) {
    float number;
    std::memcpy(&number, &bits, sizeof(number));
    return number;
  }
  static uint32_t to_bits(float number) {
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof(bits));
    return bits;
  }
  static float float16_to_float(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
    const uint32_t magnitude = half & 0x7fff;
    if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13));
    if (magnitude >= 0x0400) return from_bits(sign | ((magnitude + 0x1c000) << 13));
    const float tiny = static_cast<float>(magnitude) * 0x1p-24f;
    return sign != 0 ? -tiny : tiny;
  }
  static uint16_t float_to_float16(float number) {
    const uint32_t bits = to_bits(number);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;
    if (magnitude >= 0x477ff000) return sign | 0x7c00;  // 65520 and above round to infinity
    if (magnitude < 0x38800000) {
      // Below the smallest normal half the spacing is 2^-24: adding 0.5 lets the processor round to it.
      return sign | static_cast<uint16_t>(to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000);
    }
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return sign | static_cast<uint16_t>((rounded - 0x38000000) >> 13);
  }
};

}  // namespace mambair
