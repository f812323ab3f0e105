/* AVX2 with products of four bytes: see isa_avx2.c. */
#define AVX_VNNI
#include "isa_avx2.c"
