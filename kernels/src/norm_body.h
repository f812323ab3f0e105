/* Norms of rows over the vectors that attention_body.h uses, for each instruction set with the same bits. */

/* The sum of x - `from`, or of its squares: SUMS sums, one for the numbers with the same place modulo SUMS, of which
 * halves are then added. */
INLINE float ISA(sum_from)(const float *x, size_t count, float from, int squares)
{
    const Floats less = same_floats(from);
    Floats sums[SUMS / LANES];
    float all[SUMS];
    size_t at = 0;
    for (size_t i = 0; i < SUMS / LANES; i++) sums[i] = no_floats();
    for (; at + SUMS <= count; at += SUMS)
        for (size_t i = 0; i < SUMS / LANES; i++) {
            const Floats part = subtract_floats(load_floats(x + at + i * LANES), less);
            sums[i] = squares ? fma_floats(part, part, sums[i]) : add_floats(sums[i], part);
        }
    for (size_t i = 0; i < SUMS / LANES; i++) store_floats(all + i * LANES, sums[i]);
    for (size_t i = 0; at + i < count; i++) {
        const float part = x[at + i] - from;
        all[i] = squares ? fmaf(part, part, all[i]) : all[i] + part;
    }
    for (size_t half = SUMS / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++) all[i] += all[i + half];
    return all[0];
}

INLINE void ISA(norm_row)(const Norm *norm, const float *restrict x, float *restrict out)
{
    const size_t size = norm->size;
    const float *restrict weight = norm->weight, *restrict bias = norm->bias;
    const float mean = norm->centers ? ISA(sum_from)(x, size, 0, 0) / (float)size : 0;
    const float factor = 1.0f / sqrtf(ISA(sum_from)(x, size, mean, 1) / (float)size + norm->epsilon);
    if (bias)
        for (size_t i = 0; i < size; i++) out[i] = fmaf((x[i] - mean) * factor, weight[i], bias[i]);
    else
        for (size_t i = 0; i < size; i++) out[i] = (x[i] - mean) * factor * weight[i];
}

static void ISA(norms)(const Norm *norm, const float *x, size_t rows, float *out, float *scaled)
{
    const size_t size = norm->size;
    for (size_t r = 0; r < rows; r++, x += size, out += size) {
        ISA(norm_row)(norm, x, out);
        for (size_t i = 0; norm->scale && i < size; i++) scaled[r * size + i] = out[i] * norm->scale[i];
    }
}
