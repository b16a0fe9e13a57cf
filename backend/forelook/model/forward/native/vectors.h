/* Vectors of eight floats, by AVX2: loads, sums, and the exponential function. */
#ifndef FORELOOK_VECTORS_H
#define FORELOOK_VECTORS_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "these kernels need AVX2, FMA and F16C"
#endif

/* Inlined always: the number of rows is then a constant, and accumulators stay in registers. */
#define INLINE static inline __attribute__((always_inline))
#define LANES 8

typedef __m256 floats;
typedef __m256i integers;

INLINE floats load(const float *from) { return _mm256_loadu_ps(from); }

/* The sum of eight floats, always in the same order. */
INLINE float sum_of(floats v)
{
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

INLINE float largest_of(floats v)
{
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}

INLINE floats absolute(floats v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }

INLINE integers pairs_of(const int16_t *from) { return _mm256_loadu_si256((const __m256i_u *)from); }

/* sums[i] += a[2i] b[2i] + a[2i + 1] b[2i + 1], exactly; b from a register, or from memory where it is used once.
 *
 * In assembly, as compilers keep the products of all rows before they add the first, and then have too few registers.
 */
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
#define ADD_PRODUCTS(b) __asm__("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(a), b)
#define REGISTER "v"
#else
#define ADD_PRODUCTS(b)                                                                                     \
    integers products;                                                                                      \
    __asm__("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sums), "=&x"(products) : "x"(a), b)
#define REGISTER "x"
#endif

INLINE integers add_products(integers sums, integers a, integers b)
{
    ADD_PRODUCTS(REGISTER(b));
    return sums;
}

INLINE integers add_products_of(integers sums, integers a, const int16_t *from)
{
    const __m256i_u *b = (const __m256i_u *)from;
    ADD_PRODUCTS("m"(*b));
    return sums;
}

/* e^x for x <= 88, to about one unit in the last place: 2^n e^r with |r| <= ln 2 / 2, and Taylor's terms of e^r. */
INLINE floats exponential(floats x)
{
    const floats least = _mm256_set1_ps(-87.0f), log2_e = _mm256_set1_ps(1.44269504088896341f);
    const floats ln2_high = _mm256_set1_ps(0.693359375f), ln2_low = _mm256_set1_ps(-2.12194440e-4f);
    floats clamped = _mm256_max_ps(x, least);
    floats n = _mm256_round_ps(_mm256_mul_ps(clamped, log2_e), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    floats r = _mm256_fnmadd_ps(n, ln2_low, _mm256_fnmadd_ps(n, ln2_high, clamped));
    floats power = _mm256_set1_ps(1.0f / 5040.0f);
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f / 720.0f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f / 120.0f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f / 24.0f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f / 6.0f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(0.5f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f));
    integers exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    floats result = _mm256_mul_ps(power, _mm256_castsi256_ps(exponent));
    /* Smaller arguments give 0, as a masked or hopeless score should. */
    return _mm256_and_ps(result, _mm256_cmp_ps(x, least, _CMP_GE_OQ));
}

#endif
