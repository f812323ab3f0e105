/* Memory for packed weights: large pieces, in huge pages where the system has them, given back when the last of what
 * lies in a piece is freed. */
#ifndef EDGELLM_ARENA_H
#define EDGELLM_ARENA_H

#include <stddef.h>

/* `size` bytes of zeros, aligned to 64; NULL where there is no memory. Any thread may call these. */
void *arena_take(size_t size);
void arena_free(void *);

/* A buffer for one call, of at least `size` bytes, aligned to 64; NULL where there is no memory. Those that were given back
 * are taken first. */
void *scratch_take(size_t size);
void scratch_give_back(void *);

#endif
