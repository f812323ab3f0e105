/* Arithmetic that is the same bits wherever it is compiled, for the plain C of rounding.h and epilogue.h. */
#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define TO_WHOLE 12582912.0f /* 1.5 x 2^23: what is added to it loses its fraction, ties to even */

/* e^x to 2 units in the last place: 2^n times e^r by its series, |r| <= ln(2) / 2. Subnormal results are zero. */
INLINE float ISA(exponential)(float x)
{
    const float low = x < -87.3f ? -87.3f : x, inside = low > 88.7f ? 88.7f : low; /* NaN stays */
    const float moved = fmaf(inside, 1.44269504f, TO_WHOLE), n = moved - TO_WHOLE;
    const float r = fmaf(n, 2.12194440e-4f, fmaf(n, -0.693359375f, inside)); /* ln(2) in two parts: the first is exact */
    float p = 1.0f / 5040;
    p = fmaf(p, r, 1.0f / 720);
    p = fmaf(p, r, 1.0f / 120);
    p = fmaf(p, r, 1.0f / 24);
    p = fmaf(p, r, 1.0f / 6);
    p = fmaf(p, r, 0.5f);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    uint32_t bits, exponent;
    memcpy(&bits, &p, 4);
    memcpy(&exponent, &moved, 4);
    bits += exponent << 23; /* what lies above n in `moved` leaves by the top */
    memcpy(&p, &bits, 4);
    return x < -87.3f ? 0.0f : x > 88.7f ? INFINITY : x == x ? p : x;
}
