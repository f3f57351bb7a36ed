// Sixteen lanes of float32 on AVX-512 (F, BW, DQ, VL).
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace mambair {

struct Avx512 {
  static constexpr int lanes = 16;
  static constexpr int forward_tokens = 32;  // in a tile of the forward scan
  static constexpr int backward_tokens = 64;  // whose working set fits first-level cache in the backward scan
  static constexpr int tile_rows = 8, tile_vectors = 3;  // of a product, whose sums fill the registers
  static constexpr int chains = 8;  // exponentials worth computing side by side
  static constexpr const char* name = "avx512";
  using Vector = Avx512;
  // How far below 0 the exponent of e may be for scale: here any, as it goes down to 0 by itself.
  static constexpr float deepest_scale = 10000.0f;
  static constexpr bool scales_to_zero = true;

  __m512 value;

  static __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1u); }
  static Avx512 load(const float* from) { return {_mm512_loadu_ps(from)}; }
  // Loads that the compiler may not merge with equal ones. A fused multiply-add overwrites an operand; reading the
  // operand twice costs nothing, while copying a register takes the place of an arithmetic instruction.
  static Avx512 load_again(const float* from) {
    Avx512 loaded;
    asm volatile("vmovups %1, %0" : "=v"(loaded.value) : "m"(*reinterpret_cast<const __m512_u*>(from)));
    return loaded;
  }
  static Avx512 all_again(const float& number) {
    Avx512 loaded;
    asm volatile("vbroadcastss %1, %0" : "=v"(loaded.value) : "m"(number));
    return loaded;
  }
  static Avx512 load_some(const float* from, int count) { return {_mm512_maskz_loadu_ps(first(count), from)}; }
  void store(float* to) const { _mm512_storeu_ps(to, value); }
  void store_some(float* to, int count) const { _mm512_mask_storeu_ps(to, first(count), value); }
  static Avx512 all(float number) { return {_mm512_set1_ps(number)}; }

  static Avx512 load_bfloat16(const uint16_t* from, int count) {
    return from_bfloat16(_mm256_maskz_loadu_epi16(first(count), from));
  }
  static Avx512 load_float16(const uint16_t* from, int count) {
    return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), from))};
  }
  void store_bfloat16(uint16_t* to, int count) const {
    const __m512i bits = _mm512_castps_si512(value);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
    const __m512i safe = _mm512_mask_mov_epi32(rounded, is_nan, _mm512_set1_epi32(0x7fc00000));
    _mm256_mask_storeu_epi16(to, first(count), _mm512_cvtepi32_epi16(_mm512_srli_epi32(safe, 16)));
  }
  void store_float16(uint16_t* to, int count) const {
    _mm256_mask_storeu_epi16(to, first(count), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }

  friend Avx512 operator+(Avx512 a, Avx512 b) { return {_mm512_add_ps(a.value, b.value)}; }
  friend Avx512 operator-(Avx512 a, Avx512 b) { return {_mm512_sub_ps(a.value, b.value)}; }
  friend Avx512 operator*(Avx512 a, Avx512 b) { return {_mm512_mul_ps(a.value, b.value)}; }
  static Avx512 fma(Avx512 a, Avx512 b, Avx512 c) { return {_mm512_fmadd_ps(a.value, b.value, c.value)}; }
  static Avx512 fms(Avx512 a, Avx512 b, Avx512 c) { return {_mm512_fmsub_ps(a.value, b.value, c.value)}; }
  static Avx512 abs(Avx512 a) { return {_mm512_abs_ps(a.value)}; }
  // A NaN in the second argument is kept, one in the first is dropped.
  static Avx512 max(Avx512 a, Avx512 b) { return {_mm512_max_ps(a.value, b.value)}; }
  static Avx512 min(Avx512 a, Avx512 b) { return {_mm512_min_ps(a.value, b.value)}; }
  // False in a lane whenever a NaN takes part.
  static bool all_at_most(Avx512 a, Avx512 b) {
    return _mm512_cmp_ps_mask(a.value, b.value, _CMP_LE_OQ) == 0xffff;
  }
  // Lanes where a > b take `yes`, the others (NaN too) `no`.
  static Avx512 select_greater(Avx512 a, Avx512 b, Avx512 yes, Avx512 no) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.value, b.value, _CMP_GT_OQ), no.value, yes.value)};
  }
  // p * 2^n, where n is integral and shifted = n + 1.5 * 2^23.
  static Avx512 scale(Avx512 p, Avx512 n, Avx512 /*shifted*/) { return {_mm512_scalef_ps(p.value, n.value)}; }

  // a / b within one unit in the last place, for ordinary b: an estimate and two corrections, as division is slow.
  static Avx512 divide(Avx512 a, Avx512 b) {
    const __m512 estimate = _mm512_rcp14_ps(b.value);
    const __m512 error = _mm512_fnmadd_ps(b.value, estimate, _mm512_set1_ps(1.0f));
    const __m512 inverse = _mm512_fmadd_ps(estimate, error, estimate);
    const __m512 quotient = _mm512_mul_ps(a.value, inverse);
    const __m512 rest = _mm512_fnmadd_ps(quotient, b.value, a.value);
    return {_mm512_fmadd_ps(rest, inverse, quotient)};
  }

  // Transposes a matrix of 2 x 2 blocks of `distance` lanes, given as the rows a and b: the odd blocks of a change
  // places with the even blocks of b.
  template <int distance>
  static void exchange(Avx512& a, Avx512& b) {
    const __m512 first = a.value, second = b.value;
    if constexpr (distance == 8) {
      a.value = _mm512_shuffle_f32x4(first, second, 0x44);
      b.value = _mm512_shuffle_f32x4(first, second, 0xee);
    } else if constexpr (distance == 4) {
      const __m512i even = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
      const __m512i odd = _mm512_setr_epi32(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
      a.value = _mm512_permutex2var_ps(first, even, second);
      b.value = _mm512_permutex2var_ps(first, odd, second);
    } else if constexpr (distance == 2) {
      a.value = _mm512_shuffle_ps(first, second, 0x44);
      b.value = _mm512_shuffle_ps(first, second, 0xee);
    } else {
      a.value = _mm512_mask_blend_ps(0xaaaa, first, _mm512_moveldup_ps(second));
      b.value = _mm512_mask_blend_ps(0xaaaa, _mm512_movehdup_ps(first), second);
    }
  }

  // One round of the sums over lanes of `count` vectors: low and high hold those of count / 2 vectors each, in turns
  // over their lanes; the result holds those of all. After log2(lanes) rounds lane i is the sum of vector i.
  template <int count>
  static Avx512 merge(Avx512 low, Avx512 high) {
    const __m512 a = low.value, b = high.value;
    if constexpr (count == 2) {  // [a0 b1 ...] + [a1 b0 ...]
      const __m512i swap = _mm512_setr_epi32(1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30);
      return {_mm512_add_ps(_mm512_mask_blend_ps(0xaaaa, a, b), _mm512_permutex2var_ps(a, swap, b))};
    } else if constexpr (count == 4) {  // [a0 a1 b2 b3 ...] + [a2 a3 b0 b1 ...]
      return {_mm512_add_ps(_mm512_mask_blend_ps(0xcccc, a, b), _mm512_shuffle_ps(a, b, 0x4e))};
    } else if constexpr (count == 8) {  // quarters [a0 b1 a2 b3] + [a1 b0 a3 b2]
      const __m512i swap = _mm512_setr_epi32(4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 24, 25, 26, 27);
      return {_mm512_add_ps(_mm512_mask_blend_ps(0xf0f0, a, b), _mm512_permutex2var_ps(a, swap, b))};
    } else {  // quarters [a0 a1 b2 b3] + [a2 a3 b0 b1]
      return {_mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e))};
    }
  }

 private:
  static Avx512 from_bfloat16(__m256i bits) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
  }
};

}  // namespace mambair
