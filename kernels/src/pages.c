#include "pages.h"

#if defined(__linux__)
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { AT_ONCE = 512 };
#define PRESENT ((uint64_t)1 << 63)
#define SWAPPED ((uint64_t)1 << 62)
#define OF_FILE ((uint64_t)1 << 61) /* and not a copy that somebody has written to */

static int are_a_files(int map, uintptr_t page, size_t count)
{
    uint64_t entries[AT_ONCE];
    for (size_t done = 0; done < count; done += AT_ONCE) {
        const size_t some = count - done < AT_ONCE ? count - done : AT_ONCE;
        const off_t at = (off_t)((page + done) * sizeof *entries);
        if (pread(map, entries, some * sizeof *entries, at) != (ssize_t)(some * sizeof *entries)) return 0;
        for (size_t i = 0; i < some; i++)
            if (entries[i] & SWAPPED || (entries[i] & PRESENT && !(entries[i] & OF_FILE))) return 0;
    }
    return 1;
}

void drop_file_pages(const void *start, size_t size)
{
    const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    const uintptr_t first = ((uintptr_t)start + bytes - 1) / bytes, last = ((uintptr_t)start + size) / bytes;
    const int map = last > first ? open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC) : -1;
    if (map < 0) return;
    if (are_a_files(map, first, last - first)) madvise((void *)(first * bytes), (last - first) * bytes, MADV_DONTNEED);
    close(map);
}
#else
void drop_file_pages(const void *start, size_t size) { (void)start; (void)size; }
#endif
