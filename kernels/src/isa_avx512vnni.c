/* AVX-512 with VNNI: four products of eight bits and their sum in each of 16 lanes. */
#include "linear.h"

#if defined(__AVX512VNNI__) && defined(__AVX512F__)
#include <immintrin.h>

#include "cpu_x86.h"

#define ISA(name) avx512vnni_##name
#define LANES 16
#define ROWS 6
#define VECTORS 2
#define SHIFT 0
#define QUERIES 6
#define COLUMNS 4
typedef __m512 Floats;
typedef __m512i Ints;
typedef __m512i Weights;

static inline Weights load_weights(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline Weights low_weights(const uint8_t *p)
{
    return _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi8(15));
}
static inline Weights high_weights(const uint8_t *p)
{
    return _mm512_and_si512(_mm512_srli_epi16(_mm512_loadu_si512(p), 4), _mm512_set1_epi8(15));
}
static inline Weights load_table(const uint8_t *p) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p)); }
static inline Weights look_up(Weights table, Weights places) { return _mm512_shuffle_epi8(table, places); }
static inline Ints dot(Ints sums, Weights weights, const int8_t *four)
{
    int32_t bits;
    __builtin_memcpy(&bits, four, 4);
    const Ints same = _mm512_set1_epi32(bits);
#if defined(__GNUC__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(weights), "v"(same)); /* in place: gcc copies registers otherwise */
    return sums;
#else
    return _mm512_dpbusd_epi32(sums, weights, same);
#endif
}
static inline Ints load_zeros(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
static inline Ints same_ints(int value) { return _mm512_set1_epi32(value); }
static inline Ints start(Ints zeros, int shift, int32_t sum)
{
    const Ints low = _mm512_set1_epi32(sum & 0xffff); /* a block's sum has 16 bits: one multiplication does */
    return _mm512_madd_epi16(_mm512_sub_epi32(_mm512_set1_epi32(shift), zeros), low);
}
static inline Floats to_floats(Ints sums) { return _mm512_cvtepi32_ps(sums); }
static inline Floats scaled(Floats scale, float by) { return _mm512_mul_ps(scale, _mm512_set1_ps(by)); }
static inline Floats fma_floats(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline Floats add_floats(Floats a, Floats b) { return _mm512_add_ps(a, b); }
static inline Floats load_floats(const float *p) { return _mm512_loadu_ps(p); }
static inline void store_floats(float *p, Floats a) { _mm512_storeu_ps(p, a); }
static inline Floats same_floats(float value) { return _mm512_set1_ps(value); }
static inline Floats subtract_floats(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
static inline Floats multiply_floats(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
static inline Floats divide_floats(Floats a, Floats b) { return _mm512_div_ps(a, b); }
static inline Floats greater(Floats a, Floats b) { return _mm512_max_ps(a, b); }
static inline float greatest_of(Floats a) { return _mm512_reduce_max_ps(a); }
static inline Floats power_of_two(Floats shifted)
{
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)));
}
static inline Floats load_bfloat16(const uint16_t *p)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
static inline Floats load_int8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline Floats half_of(Floats words, int i)
{
    const __m512i bits = _mm512_castps_si512(words);
    return _mm512_castsi512_ps(i ? _mm512_and_si512(bits, _mm512_set1_epi32(-65536)) : _mm512_slli_epi32(bits, 16));
}
static inline Floats byte_of(Floats words, int i)
{
    const __m512i bits = _mm512_castps_si512(words);
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(bits, 24 - 8 * i), 24));
}
/* Four numbers of rows `row`, `row` + 4 and so on. */
static inline __m512 quarters(const float *const *rows, int row, int column)
{
    __m512 all = _mm512_castps128_ps512(_mm_loadu_ps(rows[row] + column));
    all = _mm512_insertf32x4(all, _mm_loadu_ps(rows[row + 4] + column), 1);
    all = _mm512_insertf32x4(all, _mm_loadu_ps(rows[row + 8] + column), 2);
    return _mm512_insertf32x4(all, _mm_loadu_ps(rows[row + 12] + column), 3);
}
static inline void transpose(const float *const *rows, float *to, size_t stride)
{
    for (int column = 0; column < LANES; column += 4, to += 4 * stride) {
        const __m512 a = quarters(rows, 0, column), b = quarters(rows, 1, column);
        const __m512 c = quarters(rows, 2, column), d = quarters(rows, 3, column);
        const __m512d ab = _mm512_castps_pd(_mm512_unpacklo_ps(a, b)), cd = _mm512_castps_pd(_mm512_unpacklo_ps(c, d));
        const __m512d AB = _mm512_castps_pd(_mm512_unpackhi_ps(a, b)), CD = _mm512_castps_pd(_mm512_unpackhi_ps(c, d));
        _mm512_storeu_ps(to, _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)));
        _mm512_storeu_ps(to + stride, _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
        _mm512_storeu_ps(to + 2 * stride, _mm512_castpd_ps(_mm512_unpacklo_pd(AB, CD)));
        _mm512_storeu_ps(to + 3 * stride, _mm512_castpd_ps(_mm512_unpackhi_pd(AB, CD)));
    }
}
static inline Floats no_floats(void) { return _mm512_setzero_ps(); }

#include "attention_body.h"
#include "linear_body.h"
#include "rounding.h"
#include "epilogue.h"
#include "norm_body.h"

static int is_there(void) { return x86_features().avx512vnni; }

const Kernels avx512vnni_kernels = {"avx512vnni", is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#else
const Kernels avx512vnni_kernels = {0};
#endif
