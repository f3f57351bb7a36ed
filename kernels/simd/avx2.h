// Eight lanes of float32 on AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace mambair {

struct Avx2 {
  static constexpr int lanes = 8;
  static constexpr int forward_tokens = 32;
  static constexpr int backward_tokens = 64;  // whose working set fits first-level cache in the backward scan
  static constexpr int tile_rows = 4, tile_vectors = 3;  // of a product, whose sums fill the registers
  static constexpr int chains = 4;  // exponentials worth computing side by side
  static constexpr const char* name = "avx2";
  using Vector = Avx2;
  // How far below 0 the exponent of e may be for scale; below that, results are to be set to 0.
  static constexpr float deepest_scale = 83.0f;
  static constexpr bool scales_to_zero = false;

  __m256 value;

  static __m256i first(int count) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static Avx2 load(const float* from) { return {_mm256_loadu_ps(from)}; }
  // Loads that the compiler may not merge with equal ones. A fused multiply-add overwrites an operand; reading the
  // operand twice costs nothing, while copying a register takes the place of an arithmetic instruction.
  static Avx2 load_again(const float* from) {
    Avx2 loaded;
    asm volatile("vmovups %1, %0" : "=x"(loaded.value) : "m"(*reinterpret_cast<const __m256_u*>(from)));
    return loaded;
  }
  static Avx2 all_again(const float& number) {
    Avx2 loaded;
    asm volatile("vbroadcastss %1, %0" : "=x"(loaded.value) : "m"(number));
    return loaded;
  }
  static Avx2 load_some(const float* from, int count) { return {_mm256_maskload_ps(from, first(count))}; }
  void store(float* to) const { _mm256_storeu_ps(to, value); }
  void store_some(float* to, int count) const { _mm256_maskstore_ps(to, first(count), value); }
  static Avx2 all(float number) { return {_mm256_set1_ps(number)}; }

  static Avx2 load_bfloat16(const uint16_t* from, int count) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_halves(from, count)), 16))};
  }
  static Avx2 load_float16(const uint16_t* from, int count) { return {_mm256_cvtph_ps(load_halves(from, count))}; }
  void store_bfloat16(uint16_t* to, int count) const {
    const __m256i bits = _mm256_castps_si256(value);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q));
    const __m256i safe = _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), is_nan);
    const __m256i high = _mm256_srli_epi32(safe, 16);
    store_halves(to, _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1)), count);
  }
  void store_float16(uint16_t* to, int count) const {
    store_halves(to, _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT), count);
  }

  friend Avx2 operator+(Avx2 a, Avx2 b) { return {_mm256_add_ps(a.value, b.value)}; }
  friend Avx2 operator-(Avx2 a, Avx2 b) { return {_mm256_sub_ps(a.value, b.value)}; }
  friend Avx2 operator*(Avx2 a, Avx2 b) { return {_mm256_mul_ps(a.value, b.value)}; }
  static Avx2 fma(Avx2 a, Avx2 b, Avx2 c) { return {_mm256_fmadd_ps(a.value, b.value, c.value)}; }
  static Avx2 fms(Avx2 a, Avx2 b, Avx2 c) { return {_mm256_fmsub_ps(a.value, b.value, c.value)}; }
  static Avx2 abs(Avx2 a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.value)}; }
  // A NaN in the second argument is kept, one in the first is dropped.
  static Avx2 max(Avx2 a, Avx2 b) { return {_mm256_max_ps(a.value, b.value)}; }
  static Avx2 min(Avx2 a, Avx2 b) { return {_mm256_min_ps(a.value, b.value)}; }
  // False in a lane whenever a NaN takes part.
  static bool all_at_most(Avx2 a, Avx2 b) {
    return _mm256_movemask_ps(_mm256_cmp_ps(a.value, b.value, _CMP_LE_OQ)) == 0xff;
  }
  // Lanes where a > b take `yes`, the others (NaN too) `no`.
  static Avx2 select_greater(Avx2 a, Avx2 b, Avx2 yes, Avx2 no) {
    return {_mm256_blendv_ps(no.value, yes.value, _mm256_cmp_ps(a.value, b.value, _CMP_GT_OQ))};
  }
  // p * 2^n for |n| <= 126, where shifted = n + 1.5 * 2^23: its low mantissa bits are n, moved up to the exponent.
  static Avx2 scale(Avx2 p, Avx2 /*n*/, Avx2 shifted) {
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted.value), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.value), exponent))};
  }

  // a / b within one unit in the last place, for ordinary b: an estimate and two corrections, as division is slow.
  static Avx2 divide(Avx2 a, Avx2 b) {
    const __m256 estimate = _mm256_rcp_ps(b.value);
    const __m256 error = _mm256_fnmadd_ps(b.value, estimate, _mm256_set1_ps(1.0f));
    const __m256 inverse = _mm256_fmadd_ps(estimate, error, estimate);
    const __m256 quotient = _mm256_mul_ps(a.value, inverse);
    const __m256 rest = _mm256_fnmadd_ps(quotient, b.value, a.value);
    return {_mm256_fmadd_ps(rest, inverse, quotient)};
  }

  // Transposes a matrix of 2 x 2 blocks of `distance` lanes, given as the rows a and b: the odd blocks of a change
  // places with the even blocks of b.
  template <int distance>
  static void exchange(Avx2& a, Avx2& b) {
    const __m256 first = a.value, second = b.value;
    if constexpr (distance == 4) {
      a.value = _mm256_permute2f128_ps(first, second, 0x20);
      b.value = _mm256_permute2f128_ps(first, second, 0x31);
    } else if constexpr (distance == 2) {
      a.value = _mm256_shuffle_ps(first, second, 0x44);
      b.value = _mm256_shuffle_ps(first, second, 0xee);
    } else {
      a.value = _mm256_blend_ps(first, _mm256_moveldup_ps(second), 0xaa);
      b.value = _mm256_blend_ps(_mm256_movehdup_ps(first), second, 0xaa);
    }
  }

  // One round of the sums over lanes of `count` vectors: low and high hold those of count / 2 vectors each, in turns
  // over their lanes; the result holds those of all. After log2(lanes) rounds lane i is the sum of vector i.
  template <int count>
  static Avx2 merge(Avx2 low, Avx2 high) {
    const __m256 a = low.value, b = high.value;
    if constexpr (count == 2) {  // [a0 b1 ...] + [a1 b0 ...]
      return {_mm256_add_ps(_mm256_blend_ps(a, b, 0xaa), _mm256_permute_ps(_mm256_blend_ps(b, a, 0xaa), 0xb1))};
    } else if constexpr (count == 4) {  // [a0 a1 b2 b3 ...] + [a2 a3 b0 b1 ...]
      return {_mm256_add_ps(_mm256_blend_ps(a, b, 0xcc), _mm256_shuffle_ps(a, b, 0x4e))};
    } else {  // halves [a0 b1] + [a1 b0]
      return {_mm256_add_ps(_mm256_blend_ps(a, b, 0xf0), _mm256_permute2f128_ps(a, b, 0x21))};
    }
  }

 private:
  // Partial halves go through a small buffer: AVX2 has no masked load of 16-bit numbers.
  static __m128i load_halves(const uint16_t* from, int count) {
    if (count == lanes) return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    alignas(16) uint16_t padded[lanes] = {};
    std::memcpy(padded, from, static_cast<std::size_t>(count) * sizeof(uint16_t));
    return _mm_load_si128(reinterpret_cast<const __m128i*>(padded));
  }
  static void store_halves(uint16_t* to, __m128i halves, int count) {
    if (count == lanes) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
      return;
    }
    alignas(16) uint16_t padded[lanes];
    _mm_store_si128(reinterpret_cast<__m128i*>(padded), halves);
    std::memcpy(to, padded, static_cast<std::size_t>(count) * sizeof(uint16_t));
  }
};

}  // namespace mambair
