/* Compiled for ARMv8.2 with dot products. */
#define NEON_DOT_PRODUCTS
#include "isa_neon.c"
