/* Arithmetic that is the same bits wherever it is compiled, for the plain C of rounding.h and epilogue.h. */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TO_WHOLE 12582912.0f /* 1.5 x 2^23: what is added to it loses its fraction, ties to even */

/* 2^x for x from -126 to 127: `moved` is x + TO_WHOLE, `rest` what is lost of x there. A polynomial, off by 2e-9. */
INLINE float ISA(two_to)(float moved, float rest)
{
    uint32_t bits, exponent;
    float p = 0x1.41fbb8p-13f;
    p = fmaf(p, rest, 0x1.5f3e54p-10f);
    p = fmaf(p, rest, 0x1.3b2d4cp-7f);
    p = fmaf(p, rest, 0x1.c6aee8p-5f);
    p = fmaf(p, rest, 0x1.ebfbdcp-3f);
    p = fmaf(p, rest, 0x1.62e430p-1f);
    p = fmaf(p, rest, 1.0f);
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &moved, 4);
    bits += exponent << 23; /* what lies above the power in `moved` leaves by the top */
    memcpy(&p, &bits, 4);
    return p;
}
