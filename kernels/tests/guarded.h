/* Memory of which nothing behind the end can be read or written. */
#ifndef EDGELLM_GUARDED_H
#define EDGELLM_GUARDED_H

#include <stddef.h>

/* `size` bytes of zeros, filled up to `alignment`, behind which the next page may not be touched. */
void *guarded(size_t size, size_t alignment);
void not_guarded(void *buffer);

#endif
