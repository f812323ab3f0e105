/* Which instruction set runs: the best that the processor has, or what EDGELLM_KERNELS names. */
#include <stdlib.h>
#include <string.h>

#include "linear.h"

static const Kernels *const best_first[] = {
    &avx512vnni_kernels, &avxvnni_kernels, &avx2_kernels, &neoni8mm_kernels, &neondot_kernels, &neon_kernels,
    &scalar_kernels,
};
enum { COUNT = sizeof best_first / sizeof *best_first };

static int runs(const Kernels *kernels) { return kernels->name && kernels->is_there(); }

const Kernels *chosen_kernels(void)
{
    const char *forced = getenv("EDGELLM_KERNELS");
    for (int i = 0; i < COUNT; i++)
        if (runs(best_first[i]) && (!forced || !*forced || !strcmp(forced, best_first[i]->name))) return best_first[i];
    return NULL;
}

/* The names of those that this machine runs, best first, with commas between; for programs. Until the thread asks again. */
const char *edgellm_instruction_sets(void)
{
    static _Thread_local char names[96];
    names[0] = 0;
    for (int i = 0; i < COUNT; i++)
        if (runs(best_first[i])) strcat(strcat(names, *names ? "," : ""), best_first[i]->name);
    return names;
}
