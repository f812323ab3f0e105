#include "matrix.h"

#include <string.h>

#include "arena.h"
#include "pages.h"

size_t stored_weights(const Matrix *m) { return m->columns * m->blocks * m->block * (size_t)m->bits / 8; }
size_t stored_scales(const Matrix *m) { return m->columns * m->blocks * sizeof *m->scales; }
size_t stored_zeros(const Matrix *m) { return m->columns * (m->bits == 8 ? m->blocks : (m->blocks + 1) / 2); }

int set_sizes(Matrix *m, size_t depth, size_t columns, size_t block, size_t bits)
{
    if ((bits != 4 && bits != 8) || !block || block % 16 || block > LARGEST_BLOCK) return 0;
    *m = (Matrix){.depth = depth, .columns = columns, .block = block, .bits = (int)bits, .packed = (int)bits};
    m->middle = 1 << (bits - 1);
    m->blocks = (depth + block - 1) / block;
    m->tiles = (columns + TILE - 1) / TILE;
    return 1;
}

/* Eight levels of four bits as the kernels read them, the first four in the low halves of the bytes, from four bytes that
 * hold two each, one behind the other. */
static uint32_t in_halves(uint32_t pairs)
{
    const uint32_t first = pairs & 0xffffu, second = pairs >> 16;
    const uint32_t low = (first & 0x0f0fu) | (second & 0x0f0fu) << 4; /* levels 0 and 4, 2 and 6 */
    const uint32_t high = (first >> 4 & 0x0f0fu) | (second & 0xf0f0u); /* 1 and 5, 3 and 7 */
    return (low & 0xffu) | (high & 0xffu) << 8 | (low >> 8) << 16 | (high >> 8) << 24;
}

/* Makes the weights places in a table if there are few enough, and near enough to each other. */
static void find_table(Matrix *m, const uint8_t *stored)
{
    enum { PLACES = 16, BELOW = 128 };
    uint8_t is_there[256] = {0};
    size_t different = 0;
    for (size_t i = 0, count = stored_weights(m); i < count && different <= PLACES; i++) {
        different += !is_there[stored[i]];
        is_there[stored[i]] = 1;
    }
    int lowest = 0, highest = 255;
    while (lowest < 255 && !is_there[lowest]) lowest++;
    while (highest > lowest && !is_there[highest]) highest--;
    if (different > PLACES || highest - lowest >= BELOW) return;
    m->looks_up = 1;
    m->packed = 4;
    m->middle = 128 - lowest;
    for (int level = lowest, place = 0; level <= highest; level++)
        if (is_there[level]) m->table[place++] = (uint8_t)(level - lowest);
}

/* The place of each weight in the table. */
static void places_of(const Matrix *m, uint8_t places[256])
{
    memset(places, 0, 256);
    for (int place = 0; place < 16; place++)
        if (place == 0 || m->table[place]) places[(m->table[place] + 128 - m->middle) & 255] = (uint8_t)place;
}

/* Eight weights as places of 4 bits, the first four in the low halves of the bytes. */
static uint32_t looked_up(const uint8_t *stored, const uint8_t places[256])
{
    uint32_t four = 0;
    for (int i = 0; i < 4; i++) four |= (uint32_t)(places[stored[i]] | places[stored[i + 4]] << 4) << (8 * i);
    return four;
}

/* Four bytes of each column side by side; AT_ONCE of a column at a time, so that what is read and written stays near. */
static void pack_weights(Matrix *m, const uint8_t *stored)
{
    enum { AT_ONCE = 16 };
    const size_t row = m->blocks * m->block * (size_t)m->packed / 8, words = row / 4;
    const size_t stride = row * (m->looks_up ? 2 : 1);
    uint8_t places[256];
    places_of(m, places);
    for (size_t tile = 0; tile < m->tiles; tile++) {
        const size_t width = at_most(m->columns - tile * TILE, TILE); /* zeros behind them */
        uint8_t *to = m->weights + tile * TILE * row;
        for (size_t first = 0; first < words; first += AT_ONCE)
            for (size_t c = 0; c < width; c++)
                for (size_t word = first; word < at_most(first + AT_ONCE, words); word++) {
                    const uint8_t *from = stored + (tile * TILE + c) * stride + word * (stride / words);
                    uint32_t four;
                    memcpy(&four, from, 4);
                    if (m->looks_up) four = looked_up(from, places);
                    else if (m->bits == 4) four = in_halves(four);
                    memcpy(to + (word * TILE + c) * 4, &four, 4);
                }
    }
}

static uint8_t zero_point(const Matrix *m, const uint8_t *stored, size_t column, size_t b)
{
    if (m->bits == 8) return stored[column * m->blocks + b];
    const uint8_t pair = stored[column * ((m->blocks + 1) / 2) + b / 2];
    return b % 2 ? pair >> 4 : pair & 15;
}

static void pack_blocks(Matrix *m, const float *scales, const uint8_t *zeros)
{
    for (size_t column = 0; column < m->columns; column++)
        for (size_t b = 0; b < m->blocks; b++) {
            const size_t to = ((column / TILE) * m->blocks + b) * TILE + column % TILE;
            m->scales[to] = scales[column * m->blocks + b];
            if (zeros) m->zeros[to] = zero_point(m, zeros, column, b);
        }
}

int pack_matrix(Matrix *m, Packing stored)
{
    const size_t padded = m->tiles * TILE;
    if (m->bits == 8 && !stored.zeros) find_table(m, stored.weights);
    m->weights = arena_take(m->tiles * tile_bytes(m));
    m->scales = arena_take(padded * m->blocks * sizeof *m->scales);
    m->zeros = stored.zeros ? arena_take(padded * m->blocks) : NULL;
    m->bias = stored.bias ? arena_take(padded * sizeof *m->bias) : NULL;
    if (!m->weights || !m->scales || (stored.zeros && !m->zeros) || (stored.bias && !m->bias)) return 0;
    pack_weights(m, stored.weights);
    pack_blocks(m, stored.scales, stored.zeros);
    drop_file_pages(stored.weights, stored_weights(m));
    drop_file_pages(stored.scales, stored_scales(m));
    if (stored.bias) memcpy(m->bias, stored.bias, m->columns * sizeof *m->bias);
    return 1;
}

void free_matrix(Matrix *m)
{
    arena_free(m->weights);
    arena_free(m->scales);
    arena_free(m->zeros);
    arena_free(m->bias);
}
