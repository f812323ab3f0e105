#ifndef EDGELLM_PAGES_H
#define EDGELLM_PAGES_H

#include <stddef.h>

/* Lets go of the whole pages between `start` and `start + size` if all of them are a file's, as it is on disk: whoever
 * reads them again gets them from there. Does nothing to other memory, nor where the system cannot tell. */
void drop_file_pages(const void *start, size_t size);

#endif
