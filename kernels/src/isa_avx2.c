/* AVX2. Its product of unsigned and signed bytes adds pairs in 16 bits and stops at the largest: with weights moved to
 * -128..127 and split into magnitude and sign, two products are at most 2 x 128 x 127, which fits. */
#include "linear.h"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

#include "cpu_x86.h"

#define ISA(name) avx2_##name
#define LANES 8
#define ROWS 4
#define VECTORS 1
#define SHIFT 128
typedef __m256 Floats;
typedef __m256i Ints;
typedef __m256i Weights; /* less 128, or, of four bits, as they are */

static inline __m256i bytes(const uint8_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline Weights load_weights(const uint8_t *p) { return _mm256_xor_si256(bytes(p), _mm256_set1_epi8(-128)); }
static inline Weights low_weights(const uint8_t *p) { return _mm256_and_si256(bytes(p), _mm256_set1_epi8(15)); }
static inline Weights high_weights(const uint8_t *p)
{
    return _mm256_and_si256(_mm256_srli_epi16(bytes(p), 4), _mm256_set1_epi8(15));
}
static inline Ints dot(Ints sums, Weights weights, const int8_t *four)
{
    int32_t bits;
    __builtin_memcpy(&bits, four, 4);
    const __m256i signs = _mm256_sign_epi8(_mm256_set1_epi32(bits), weights);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), signs);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
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
static inline Floats no_floats(void) { return _mm256_setzero_ps(); }

#include "linear_body.h"
#include "rounding.h"
#include "epilogue.h"

static int is_there(void) { return x86_features().avx2; }

const Kernels avx2_kernels = {"avx2", is_there, ISA(rounds), ISA(multiplies), ISA(finishes)};
#else
const Kernels avx2_kernels = {0};
#endif
