/* Arithmetic that is the same bits wherever it is compiled, for the plain C of rounding.h and epilogue.h, and what
 * attention_body.h has of it in vectors. */
#ifndef EDGELLM_PLAIN_H
#define EDGELLM_PLAIN_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TO_WHOLE 12582912.0f /* 1.5 x 2^23: what is added to it loses its fraction, ties to even */

/* 2^x for x from -1/2 to 1/2, a polynomial of x, off by 2e-9: factors of x^6, x^5 and so on. */
enum { POWERS = 7 };
static const float power_factors[POWERS] = {0x1.41fbb8p-13f, 0x1.5f3e54p-10f, 0x1.3b2d4cp-7f, 0x1.c6aee8p-5f,
                                            0x1.ebfbdcp-3f,  0x1.62e430p-1f,  1.0f};

/* Of x, of as many `factors` as its powers, the highest first. */
INLINE float ISA(polynomial)(float x, const float *factors, int powers)
{
    float sum = factors[0];
    for (int i = 1; i < powers; i++) sum = fmaf(sum, x, factors[i]);
    return sum;
}

/* 2^x for x from -126 to 127: `moved` is x + TO_WHOLE, `rest` what is lost of x there. */
INLINE float ISA(two_to)(float moved, float rest)
{
    uint32_t bits, exponent;
    float p = ISA(polynomial)(rest, power_factors, POWERS);
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &moved, 4);
    bits += exponent << 23; /* what lies above the power in `moved` leaves by the top */
    memcpy(&p, &bits, 4);
    return p;
}

#endif
