/* The kernels of linear.h over a thin layer of vectors, which the including file defines:
 *
 *   LANES, ROWS, VECTORS     numbers in a vector; rows and vectors that are kept in registers
 *   Floats, Ints, Weights    vectors of float32, of int32, and of LANES x 4 weights
 *   ISA(name)                a name of its own for each instruction set
 *   load_weights(p), low_weights(p), high_weights(p)   8 bits; the low and the high halves of bytes
 *   load_table(p), look_up(table, places)              16 weights; those at places of 4 bits
 *   dot(sums, weights, four) sums + products of each lane's four weights with the same four activations (int32 at `four`)
 *   SHIFT                    what load_weights takes from its weights
 *   start(zeros, shift, sum) what sums begin with: (shift - zeros) x sum
 *   PAIRS                    1 where products of matrices take two rows at a time; a last row is alone
 *   to_pairs(a, b), to_rows(a, b)             two rows' sums become what add_pairs takes, and back
 *   add_pairs(a, b, first, second, at, next)  sums + products of each lane's eight weights, of which `first` has four,
 *                                             with eight activations of one row and of the next
 *   load_zeros, to_floats, scaled, fma_floats, load_floats, store_floats, add_floats, no_floats */

#if !defined(PAIRS)
#define PAIRS 0
#endif

/* `next` [blocks][share]: weights that are asked for meanwhile. */
static inline __attribute__((always_inline)) void ISA(multiply_rows)(
    const Matrix *matrix, size_t tile, size_t vector, Rounded rounded, int rows, int four_bits, int looks_up,
    const uint8_t *next, size_t share, float *out, size_t stride)
{
    const size_t block = matrix->block, blocks = matrix->blocks, depth = block * blocks;
    const int middle = matrix->middle, shift = four_bits ? 0 : SHIFT;
    const Weights table = load_table(matrix->table);
    const int eight = PAIRS || four_bits;
    const size_t inputs = eight ? 8 : 4, steps = block / inputs, step = TILE * inputs / (four_bits ? 2 : 1);
    const size_t column = vector * LANES;
    const uint8_t *weights = matrix->weights + tile * blocks * steps * step + column * 4;
    const float *scales = matrix->scales + tile * blocks * TILE + column;
    const uint8_t *zeros = matrix->zeros ? matrix->zeros + tile * blocks * TILE + column : NULL;
    Floats total[ROWS][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) total[r][v] = no_floats();
    for (size_t b = 0; b < blocks; b++, scales += TILE) {
        Ints sums[ROWS][VECTORS];
        const int8_t *values = rounded.values + b * block;
        for (size_t at = 0; at < share; at += LINE) __builtin_prefetch(next + b * share + at, 0, 2);
        if (zeros)
            for (int v = 0; v < VECTORS; v++) {
                const Ints zero = load_zeros(zeros + b * TILE + v * LANES);
                for (int r = 0; r < rows; r++) sums[r][v] = start(zero, shift, rounded.sums[r * blocks + b]);
            }
        else
            for (int r = 0; r < rows; r++) {
                const Ints same = same_ints((shift - middle) * rounded.sums[r * blocks + b]);
                for (int v = 0; v < VECTORS; v++) sums[r][v] = same;
            }
#if PAIRS
        for (int r = 0; r + 1 < rows; r += 2)
            for (int v = 0; v < VECTORS; v++) to_pairs(&sums[r][v], &sums[r + 1][v]);
#endif
#pragma GCC unroll 4
        for (size_t s = 0; s < steps; s++, weights += step, values += inputs) {
            Weights first[VECTORS], second[VECTORS];
            for (int v = 0; v < VECTORS; v++) {
                const uint8_t *at = weights + v * LANES * 4;
                first[v] = four_bits ? low_weights(at) : load_weights(at);
                if (eight) second[v] = four_bits ? high_weights(at) : load_weights(at + TILE * 4);
                if (looks_up) first[v] = look_up(table, first[v]), second[v] = look_up(table, second[v]);
            }
            int r = 0;
#if PAIRS
            for (; r + 1 < rows; r += 2)
                for (int v = 0; v < VECTORS; v++) {
                    const int8_t *at = values + r * depth;
                    add_pairs(&sums[r][v], &sums[r + 1][v], first[v], second[v], at, at + depth);
                }
#endif
            for (; r < rows; r++) {
                const int8_t *at = values + r * depth;
                for (int v = 0; v < VECTORS; v++) sums[r][v] = dot(sums[r][v], first[v], at);
                if (eight)
                    for (int v = 0; v < VECTORS; v++) sums[r][v] = dot(sums[r][v], second[v], at + 4);
            }
        }
#if PAIRS
        for (int r = 0; r + 1 < rows; r += 2)
            for (int v = 0; v < VECTORS; v++) to_rows(&sums[r][v], &sums[r + 1][v]);
#endif
        for (int v = 0; v < VECTORS; v++) {
            const Floats scale = load_floats(scales + v * LANES);
            for (int r = 0; r < rows; r++) {
                const Floats both = scaled(scale, rounded.scales[r * blocks + b]);
                total[r][v] = fma_floats(to_floats(sums[r][v]), both, total[r][v]);
            }
        }
    }
    const float *bias = matrix->bias ? matrix->bias + tile * TILE + column : NULL;
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < VECTORS; v++) {
            const Floats sum = bias ? add_floats(total[r][v], load_floats(bias + v * LANES)) : total[r][v];
            store_floats(out + r * stride + column + v * LANES, sum);
        }
}

#define CASE(n) \
    case n: \
        if (matrix->looks_up) ISA(multiply_rows)(matrix, tile, vector, rest, n, 1, 1, next, share, to, stride); \
        else if (matrix->packed == 4) ISA(multiply_rows)(matrix, tile, vector, rest, n, 1, 0, next, share, to, stride); \
        else ISA(multiply_rows)(matrix, tile, vector, rest, n, 0, 0, next, share, to, stride); \
        break;

/* Rows go in passes over the tile, as even as they can be. Behind the first, weights come from a near cache, and the memory
 * would have nothing to do: each pass asks for its share of the next tile, block by block. */
static void ISA(multiplies)(const Matrix *matrix, size_t tile, Rounded rounded, size_t rows, const uint8_t *ahead,
                            float *out, size_t stride)
{
    const size_t passes = rows <= ROWS ? 1 : (rows + ROWS - 1) / ROWS, halves = TILE / LANES / VECTORS;
    const size_t even = passes == 1 ? rows : (rows + passes - 1) / passes, each = PAIRS ? (even + 1) / 2 * 2 : even;
    const size_t line_blocks = passes * halves * matrix->blocks * LINE;
    const size_t share = ahead && rows >= ROWS ? (tile_bytes(matrix) + line_blocks - 1) / line_blocks * LINE : 0;
    const uint8_t *next = share ? ahead : matrix->weights;
    for (size_t row = 0; row < rows; row += each) {
        const size_t count = rows - row < each ? rows - row : each;
        float *to = out + row * stride;
        for (size_t r = 0; passes > 1 && r < count; r++)
            for (size_t column = 0; column < TILE; column += LINE / sizeof *out)
                __builtin_prefetch(to + r * stride + column, 1);
        const Rounded rest = {
            rounded.values + row * matrix->blocks * matrix->block,
            rounded.scales + row * matrix->blocks,
            rounded.sums + row * matrix->blocks,
        };
        for (size_t vector = 0; vector < TILE / LANES; vector += VECTORS, next += share * matrix->blocks) switch (count) {
                CASE(1)
#if ROWS > 1
                CASE(2)
#endif
#if ROWS > 2
                CASE(3)
                CASE(4)
#endif
#if ROWS > 4
                CASE(5)
                CASE(6)
#endif
#if ROWS > 6
                CASE(7)
                CASE(8)
#endif
            }
    }
}

#undef CASE
