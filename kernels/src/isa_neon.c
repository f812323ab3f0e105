/* NEON, with products of four bytes (ARMv8.2's dot products), or without: then by way of 16 bits. */
#include "linear.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#if defined(NEON_DOT_PRODUCTS)
#define ISA(name) neondot_##name
#else
#define ISA(name) neon_##name
#endif
#define LANES 4
#define ROWS 4
#define VECTORS 2
#define SHIFT 128
#define QUERIES 6
#define COLUMNS 4
typedef float32x4_t Floats;
typedef int32x4_t Ints;
typedef int8x16_t Weights; /* less 128, or, of four bits, as they are */

static inline Weights load_weights(const uint8_t *p)
{
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(128)));
}
static inline Weights low_weights(const uint8_t *p) { return vreinterpretq_s8_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))); }
static inline Weights high_weights(const uint8_t *p) { return vreinterpretq_s8_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
static inline Ints dot(Ints sums, Weights weights, const int8_t *four)
{
    int32_t bits;
    __builtin_memcpy(&bits, four, 4);
    const int8x16_t values = vreinterpretq_s8_s32(vdupq_n_s32(bits));
#if defined(NEON_DOT_PRODUCTS)
    return vdotq_s32(sums, weights, values);
#else
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(values)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(weights, values));
    return vaddq_s32(sums, vpaddq_s32(low, high));
#endif
}
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

#if defined(NEON_DOT_PRODUCTS)
#if defined(__linux__)
#include <sys/auxv.h>
static int is_there(void) { return (getauxval(16 /* AT_HWCAP */) >> 20 /* HWCAP_ASIMDDP */) & 1; }
#elif defined(__APPLE__)
static int is_there(void) { return 1; } /* every Apple silicon has them */
#else
static int is_there(void) { return 0; }
#endif
const Kernels neondot_kernels = {"neondot", is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#else
static int is_there(void) { return 1; }
const Kernels neon_kernels = {"neon", is_there, ISA(rounds), ISA(multiplies), ISA(activates), ISA(norms), ATTENTION_KERNELS};
#endif
#elif defined(NEON_DOT_PRODUCTS)
const Kernels neondot_kernels = {0};
#else
const Kernels neon_kernels = {0};
#endif
