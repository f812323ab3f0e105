/* AVX2, with products of four bytes (AVX-VNNI), or without: its product of unsigned and signed bytes adds pairs in 16 bits
 * and stops at the largest. With weights moved to -128..127 and split into magnitude and sign, two products are at most
 * 2 x 128 x 127, which fits. */
#include "linear.h"

#if defined(__AVX2__) && defined(__FMA__) && (defined(__AVXVNNI__) || !defined(AVX_VNNI))
#include <immintrin.h>

#include "cpu_x86.h"

#if defined(AVX_VNNI)
#define ISA(name) avxvnni_##name
#define VECTORS 2
#define SHIFT 0
#else
#define ISA(name) avx2_##name
#define VECTORS 1
#define SHIFT 128
#endif
#define LANES 8
#define ROWS 4
#define QUERIES 6
#define COLUMNS 2
typedef __m256 Floats;
typedef __m256i Ints;
typedef __m256i Weights; /* less SHIFT, or, of four bits, as they are */

static inline __m256i bytes(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline Weights load_weights(const uint8_t *p)
{
#if defined(AVX_VNNI)
    return bytes(p);
#else
    return _mm256_xor_si256(bytes(p), _mm256_set1_epi8(-128));
#endif
}
static inline Weights low_weights(const uint8_t *p) { return _mm256_and_si256(bytes(p), _mm256_set1_epi8(15)); }
static inline Weights high_weights(const uint8_t *p)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes(p), 4), _mm256_set1_epi8(15));
}
static inline Weights load_table(const uint8_t *p)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}
static inline Weights look_up(Weights table, Weights places) { return _mm256_shuffle_epi8(table, places); }
static inline Ints dot(Ints sums, Weights weights, const int8_t *four)
{
    int32_t bits;
    __builtin_memcpy(&bits, four, 4);
    const __m256i same = _mm256_set1_epi32(bits);
#if defined(AVX_VNNI)
    return _mm256_dpbusd_avx_epi32(sums, weights, same);
#else
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(same, weights));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
#endif
}
static inline Ints load_zeros(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
static inline Ints same_ints(int value) { return _mm256_set1_epi32(value); }
static inline Ints start(Ints zeros, int shift, int32_t sum)
{
    const Ints low = _mm256_set1_epi32(sum & 0xffff); /* a block's sum has 16 bits: one multiplication does */
    return _mm256_madd_epi16(_mm256_sub_epi32(_mm256_set1_epi32(shift), zeros), low);
}
static inline Floats to_floats(Ints sums) { return _mm256_cvtepi32_ps(sums); }
static inline Floats scaled(Floats scale, float by) { return _mm256_mul_ps(scale, _mm256_set1_ps(by)); }
static inline Floats fma_floats(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline Floats add_floats(Floats a, Floats b) { return _mm256_add_ps(a, b); }
static inline Floats load_floats(const float *p) { return _mm256_loadu_ps(p); }
static inline void store_floats(float *p, Floats a) { _mm256_storeu_ps(p, a); }
static inline Floats same_floats(float value) { return _mm256_set1_ps(value); }
static inline Floats subtract_floats(Floats a, Floats b) { return _mm256_sub_ps(a, b); }
static inline Floats multiply_floats(Floats a, Floats b) { return _mm256_mul_ps(a, b); }
static inline Floats divide_floats(Floats a, Floats b) { return _mm256_div_ps(a, b); }
static inline Floats greater(Floats a, Floats b) { return _mm256_max_ps(a, b); }
static inline float greatest_of(Floats a)
{
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 two = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
static inline Floats power_of_two(Floats shifted)
{
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)));
}
static inline Floats load_bfloat16(const uint16_t *p)
{
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline Floats load_int8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline Floats half_of(Floats words, int i)
{
    const __m256i bits = _mm256_castps_si256(words);
    return _mm256_castsi256_ps(i ? _mm256_and_si256(bits, _mm256_set1_epi32(-65536)) : _mm256_slli_epi32(bits, 16));
}
static inline Floats byte_of(Floats words, int i)
{
    const __m256i bits = _mm256_castps_si256(words);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bits, 24 - 8 * i), 24));
}
/* Four numbers of row `row` and of the fourth behind it. */
static inline __m256 halves(const float *const *rows, int row, int column)
{
    const __m256 first = _mm256_castps128_ps256(_mm_loadu_ps(rows[row] + column));
    return _mm256_insertf128_ps(first, _mm_loadu_ps(rows[row + 4] + column), 1);
}
static inline void transpose(const float *const *rows, float *to, size_t stride)
{
    for (int column = 0; column < LANES; column += 4, to += 4 * stride) {
        const __m256 a = halves(rows, 0, column), b = halves(rows, 1, column);
        const __m256 c = halves(rows, 2, column), d = halves(rows, 3, column);
        const __m256d ab = _mm256_castps_pd(_mm256_unpacklo_ps(a, b)), cd = _mm256_castps_pd(_mm256_unpacklo_ps(c, d));
        const __m256d AB = _mm256_castps_pd(_mm256_unpackhi_ps(a, b)), CD = _mm256_castps_pd(_mm256_unpackhi_ps(c, d));
        _mm256_storeu_ps(to, _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)));
        _mm256_storeu_ps(to + stride, _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
        _mm256_storeu_ps(to + 2 * stride, _mm256_castpd_ps(_mm256_unpacklo_pd(AB, CD)));
        _mm256_storeu_ps(to + 3 * stride, _mm256_castpd_ps(_mm256_unpackhi_pd(AB, CD)));
    }
}
static inline Floats no_floats(void) { return _mm256_setzero_ps(); }

#include "attention_body.h"
#include "linear_body.h"
#include "rounding.h"
#include "epilogue.h"
#include "norm_body.h"

#if defined(AVX_VNNI)
static int is_there(void) { return x86_features().avxvnni; }
const Kernels avxvnni_kernels = {"avxvnni", is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#else
static int is_there(void) { return x86_features().avx2; }
const Kernels avx2_kernels = {"avx2", is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#endif
#elif defined(AVX_VNNI)
const Kernels avxvnni_kernels = {0};
#else
const Kernels avx2_kernels = {0};
#endif
