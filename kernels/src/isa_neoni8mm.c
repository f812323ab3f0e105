/* Compiled for ARMv8.2 with dot products and i8mm. */
#define NEON_DOT_PRODUCTS
#define NEON_MATRIX_PRODUCTS
#include "isa_neon.c"
