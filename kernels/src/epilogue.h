/* What becomes of a layer's sums before they leave the processor's caches: activation, gate and residual, in plain C that
 * compilers make vectors of; the same bits wherever it is compiled. */

/* One over a number from 1 to 2^125, to a unit in the last place. A division takes four times as long. */
INLINE float ISA(reciprocal)(float x)
{
    uint32_t bits;
    float found, error;
    memcpy(&bits, &x, 4);
    bits = 0x7ef311c0u - bits; /* off by a twentieth */
    memcpy(&found, &bits, 4);
    error = fmaf(-x, found, 1.0f);
    found = fmaf(found, fmaf(error, error, error), found); /* the error's third power is left, then the second of that */
    return fmaf(found, fmaf(-x, found, 1.0f), found);
}

/* 1 / (1 + e^-x), of which one is left at 2^-124. Any number for NaN. */
INLINE float ISA(sigmoid)(float x)
{
    const float power = x * -1.44269504f, low = power < -126.0f ? -126.0f : power, inside = low > 124.0f ? 124.0f : low;
    const float moved = inside + TO_WHOLE;
    return ISA(reciprocal)(1.0f + ISA(two_to)(moved, inside - (moved - TO_WHOLE)));
}

/* x times the share of a normal distribution that lies below x: a half, and x times a polynomial of x^2, with an error of
 * 3e-8 up to 5.356, beyond which the share is 0 or 1 to 5e-8. */
INLINE float ISA(gelu)(float x)
{
    static const float factors[] = {0x1.65b752p-12f, -0x1.da340ep-11f, 0x1.a95ebep-11f, -0x1.2dd156p-10f, 0x1.c0af2ap-9f,
                                    -0x1.9e8f78p-8f, 0x1.307434p-7f, -0x1.bea666p-7f, 0x1.3cdc6ap-6f, -0x1.a2c9c4p-6f,
                                    0x1.070af4p-5f, -0x1.4297e2p-5f, 0x1.900c88p-5f, -0x1.0db30cp-4f, 0x1.0e537ep-3f};
    const float low = x < -5.35625f ? -5.35625f : x, inside = low > 5.35625f ? 5.35625f : low;
    const float t = fmaf(inside * inside, 0.06971213f, -1.0f);
    return x * (0.5f + inside * ISA(polynomial)(t, factors, sizeof factors / sizeof *factors));
}

INLINE float ISA(gelu_tanh)(float x) /* tanh(u) is 2 sigmoid(2u) - 1 */
{
    return x * ISA(sigmoid)(1.59576912f * (x + 0.044715f * x * x * x));
}

INLINE float ISA(activated)(float x, Activation activation, float alpha)
{
    switch (activation) {
    case SWISH: return x * ISA(sigmoid)(alpha * x);
    case GELU: return ISA(gelu)(x);
    case GELU_TANH: return ISA(gelu_tanh)(x);
    case RELU: return x < 0 ? 0.0f : x;
    default: return x;
    }
}

INLINE void ISA(activate_row)(float *restrict x, Activation activation, float alpha)
{
    for (size_t i = 0; i < TILE; i++) x[i] = ISA(activated)(x[i], activation, alpha);
}

static void ISA(activates)(float *out, size_t stride, size_t rows, Activation activation, float alpha, const float *gated)
{
    for (size_t r = 0; r < rows; r++, out += stride) {
        switch (activation) { /* each a loop of its own, without the choice inside */
        case SWISH: ISA(activate_row)(out, SWISH, alpha); break;
        case GELU: ISA(activate_row)(out, GELU, alpha); break;
        case GELU_TANH: ISA(activate_row)(out, GELU_TANH, alpha); break;
        case RELU: ISA(activate_row)(out, RELU, alpha); break;
        default: break;
        }
        if (!gated) continue;
        for (size_t i = 0; i < TILE; i++) out[i] *= gated[r * TILE + i];
    }
}
