/* What an x86 processor and its system have, asked of the processor itself: compilers' own ways differ. */
#ifndef EDGELLM_CPU_X86_H
#define EDGELLM_CPU_X86_H

#include <cpuid.h>
#include <stdint.h>

typedef struct { int avx2, avxvnni, avx512vnni; } X86;

/* Which registers the system saves for each thread, a bit each. */
static inline uint32_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static inline int has(uint32_t word, int bit) { return (int)(word >> bit & 1); }

static inline X86 x86_features(void)
{
    enum { XSAVE = 27, FMA = 12, AVX2 = 5, F = 16, BW = 30, VL = 31, VNNI = 11, VEX_VNNI = 4 };
    enum { YMM = 0x06, ZMM = 0xe6 };
    uint32_t a, b, c, d, first;
    if (!__get_cpuid(1, &a, &b, &first, &d) || !has(first, XSAVE) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return (X86){0, 0, 0};
    const uint32_t saved = saved_registers();
    const int avx2 = (saved & YMM) == YMM && has(first, FMA) && has(b, AVX2);
    const int avx512 = (saved & ZMM) == ZMM && has(b, F) && has(b, BW) && has(b, VL) && has(c, VNNI);
    const int vex_vnni = __get_cpuid_count(7, 1, &a, &b, &c, &d) && has(a, VEX_VNNI);
    return (X86){avx2, avx2 && vex_vnni, avx2 && avx512};
}

#endif
