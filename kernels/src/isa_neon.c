/* NEON, with products of eight bytes of two rows (i8mm), of four bytes (ARMv8.2's dot products), or without: then by way
 * of 16 bits. */
#include "linear.h"

#if defined(NEON_MATRIX_PRODUCTS)
#define NAME "neoni8mm"
#define ISA(name) neoni8mm_##name
#define ROWS 8 /* weights are put in order once for all of them */
#define SHIFT 0
#define PAIRS 1
#elif defined(NEON_DOT_PRODUCTS)
#define NAME "neondot"
#define ISA(name) neondot_##name
#define ROWS 4
#define SHIFT 128
#else
#define NAME "neon"
#define ISA(name) neon_##name
#define ROWS 4
#define SHIFT 128
#endif

#if defined(__aarch64__) && (defined(__ARM_FEATURE_MATMUL_INT8) || !defined(NEON_MATRIX_PRODUCTS))
#include <arm_neon.h>

#define LANES 4
#define VECTORS 2
#define QUERIES 6
#define COLUMNS 4
typedef float32x4_t Floats;
typedef int32x4_t Ints;
typedef int8x16_t Weights; /* less SHIFT, or, of four bits, as they are; i8mm reads them unsigned */

static inline Weights load_weights(const uint8_t *p)
{
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(SHIFT)));
}
static inline Weights low_weights(const uint8_t *p) { return vreinterpretq_s8_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
static inline Weights high_weights(const uint8_t *p) { return vreinterpretq_s8_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
static inline Weights load_table(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
static inline Weights look_up(Weights table, Weights places) { return vqtbl1q_s8(table, vreinterpretq_u8_s8(places)); }
static inline Ints dot(Ints sums, Weights weights, const int8_t *four)
{
    int32_t bits;
    __builtin_memcpy(&bits, four, 4);
    const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(bits));
#if defined(NEON_MATRIX_PRODUCTS)
    return vusdotq_s32(sums, vreinterpretq_u8_s8(weights), values);
#elif defined(NEON_DOT_PRODUCTS)
    return vdotq_s32(sums, weights, values);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(values)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(weights, values));
    return vaddq_s32(sums, vpaddq_s32(low, high));
#endif
}
#if defined(NEON_MATRIX_PRODUCTS)
/* In pairs, both rows' sums lie beside each other: of the first two columns in a, of the others in b. */
static inline void to_pairs(Ints *a, Ints *b)
{
    const int32x4x2_t pairs = vzipq_s32(*a, *b);
    *a = pairs.val[0], *b = pairs.val[1];
}
static inline void to_rows(Ints *a, Ints *b)
{
    const int32x4x2_t rows = vuzpq_s32(*a, *b);
    *a = rows.val[0], *b = rows.val[1];
}
static inline void add_pairs(Ints *a, Ints *b, Weights first, Weights second, const int8_t *at, const int8_t *next)
{
    const int8x16_t values = vcombine_s8(vld1_s8(at), vld1_s8(next));
    const uint32x4x2_t eights = vzipq_u32(vreinterpretq_u32_s8(first), vreinterpretq_u32_s8(second)); /* of two columns each */
    *a = vusmmlaq_s32(*a, vreinterpretq_u8_u32(eights.val[0]), values);
    *b = vusmmlaq_s32(*b, vreinterpretq_u8_u32(eights.val[1]), values);
}
#endif
static inline Ints load_zeros(const uint8_t *p)
{
    uint32_t bits;
    __builtin_memcpy(&bits, p, 4);
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(bits));
    return vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))));
}
static inline Ints same_ints(int value) { return vdupq_n_s32(value); }
static inline Ints start(Ints zeros, int shift, int32_t sum)
{
    return vmulq_s32(vsubq_s32(vdupq_n_s32(shift), zeros), vdupq_n_s32(sum));
}
static inline Floats to_floats(Ints sums) { return vcvtq_f32_s32(sums); }
static inline Floats scaled(Floats scale, float by) { return vmulq_n_f32(scale, by); }
static inline Floats fma_floats(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
static inline Floats add_floats(Floats a, Floats b) { return vaddq_f32(a, b); }
static inline Floats load_floats(const float *p) { return vld1q_f32(p); }
static inline void store_floats(float *p, Floats a) { vst1q_f32(p, a); }
static inline Floats same_floats(float value) { return vdupq_n_f32(value); }
static inline Floats subtract_floats(Floats a, Floats b) { return vsubq_f32(a, b); }
static inline Floats multiply_floats(Floats a, Floats b) { return vmulq_f32(a, b); }
static inline Floats divide_floats(Floats a, Floats b) { return vdivq_f32(a, b); }
static inline Floats greater(Floats a, Floats b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline float greatest_of(Floats a) { return vmaxvq_f32(a); }
static inline Floats power_of_two(Floats shifted)
{
    const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23);
    return vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f800000)));
}
static inline Floats load_bfloat16(const uint16_t *p) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16)); }
static inline Floats load_int8(const int8_t *p)
{
    int32_t four;
    __builtin_memcpy(&four, p, 4);
    const int8x8_t bytes = vreinterpret_s8_s32(vdup_n_s32(four));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))));
}
static inline Floats half_of(Floats words, int i)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(words);
    return vreinterpretq_f32_u32(i ? vandq_u32(bits, vdupq_n_u32(0xffff0000u)) : vshlq_n_u32(bits, 16));
}
static inline Floats byte_of(Floats words, int i)
{
    const int32x4_t upper = vshlq_s32(vreinterpretq_s32_f32(words), vdupq_n_s32(24 - 8 * i));
    return vcvtq_f32_s32(vshrq_n_s32(upper, 24));
}
static inline void transpose(const float *const *rows, float *to, size_t stride)
{
    const float32x4x2_t ab = vtrnq_f32(vld1q_f32(rows[0]), vld1q_f32(rows[1]));
    const float32x4x2_t cd = vtrnq_f32(vld1q_f32(rows[2]), vld1q_f32(rows[3]));
    for (int i = 0; i < 2; i++) {
        vst1q_f32(to + i * stride, vcombine_f32(vget_low_f32(ab.val[i]), vget_low_f32(cd.val[i])));
        vst1q_f32(to + (i + 2) * stride, vcombine_f32(vget_high_f32(ab.val[i]), vget_high_f32(cd.val[i])));
    }
}
static inline Floats no_floats(void) { return vdupq_n_f32(0); }

#include "attention_body.h"
#include "linear_body.h"
#include "rounding.h"
#include "epilogue.h"
#include "norm_body.h"

#if !defined(NEON_DOT_PRODUCTS)
static int is_there(void) { return 1; }
#elif defined(__linux__)
#include <sys/auxv.h>
static int is_there(void)
{
    const unsigned long dots = getauxval(16 /* AT_HWCAP */) >> 20 /* HWCAP_ASIMDDP */;
    const unsigned long matrices = getauxval(26 /* AT_HWCAP2 */) >> 13 /* HWCAP2_I8MM */;
    return dots & (PAIRS ? matrices : 1) & 1;
}
#elif defined(__APPLE__) && PAIRS
#include <sys/sysctl.h>
static int is_there(void)
{
    int has = 0;
    size_t size = sizeof has;
    return !sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &size, NULL, 0) && has;
}
#elif defined(__APPLE__)
static int is_there(void) { return 1; } /* every Apple silicon has dot products */
#else
static int is_there(void) { return 0; }
#endif

const Kernels ISA(kernels) = {NAME, is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#else
const Kernels ISA(kernels) = {0};
#endif
