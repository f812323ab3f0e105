/* What becomes of a layer's sums before they leave the processor's caches: activation, gate and residual, in plain C that
 * compilers make vectors of; the same bits wherever it is compiled. */

INLINE float ISA(sigmoid)(float x) { return 1.0f / (1.0f + ISA(exponential)(-x)); }

/* 1 - erf(x) for x >= 0, to a share of 1.2e-7: Press et al., Numerical Recipes in C, 2nd edition, section 6.2. */
INLINE float ISA(erfc_above)(float x)
{
    const float t = 1.0f / (1.0f + 0.5f * x);
    float p = 0.17087277f;
    p = fmaf(p, t, -0.82215223f);
    p = fmaf(p, t, 1.48851587f);
    p = fmaf(p, t, -1.13520398f);
    p = fmaf(p, t, 0.27886807f);
    p = fmaf(p, t, -0.18628806f);
    p = fmaf(p, t, 0.09678418f);
    p = fmaf(p, t, 0.37409196f);
    p = fmaf(p, t, 1.00002368f);
    p = fmaf(p, t, -1.26551223f);
    return t * ISA(exponential)(p - x * x);
}

INLINE float ISA(gelu)(float x)
{
    const float z = x * 0.707106781f, above = ISA(erfc_above)(fabsf(z));
    return 0.5f * x * (z < 0 ? above : 2.0f - above);
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
