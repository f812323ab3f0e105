#include "arena.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
static SRWLOCK lock = SRWLOCK_INIT;
static void begin(void) { AcquireSRWLockExclusive(&lock); }
static void end(void) { ReleaseSRWLockExclusive(&lock); }
static void *pages(size_t size) { return VirtualAlloc(NULL, size, MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE); }
static void no_pages(void *start, size_t size) { (void)size; VirtualFree(start, 0, MEM_RELEASE); }
static void *aligned(size_t size) { return _aligned_malloc(size, 64); }
static void not_aligned(void *p) { _aligned_free(p); }
#else
#include <pthread.h>
#include <sys/mman.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void begin(void) { pthread_mutex_lock(&lock); }
static void end(void) { pthread_mutex_unlock(&lock); }
static void *pages(size_t size)
{
    void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}
static void no_pages(void *start, size_t size) { munmap(start, size); }
static void *aligned(size_t size)
{
    void *p = NULL;
    return posix_memalign(&p, 64, size) ? NULL : p;
}
static void not_aligned(void *p) { free(p); }
#endif

#define HUGE_PAGE ((size_t)2 << 20)
#define PIECE (16 * HUGE_PAGE) /* of address space; only what is used becomes memory */

typedef struct Piece {
    struct Piece *next;
    char *start;   /* as the system gave it */
    size_t size;
    char *free, *last;
    size_t users;
} Piece;

static Piece *newest; /* allocations come from this one */
static Piece *all;

static Piece *new_piece(size_t size)
{
    Piece *piece = malloc(sizeof *piece);
    const size_t whole = (size > PIECE ? (size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE : PIECE) + HUGE_PAGE;
    char *start = piece ? pages(whole) : NULL;
    if (!start) {
        free(piece);
        return NULL;
    }
    char *first = (char *)(((uintptr_t)start + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
#if defined(MADV_HUGEPAGE)
    madvise(first, whole - HUGE_PAGE, MADV_HUGEPAGE); /* where it is refused, small pages do */
#endif
    *piece = (Piece){all, start, whole, first, first + whole - HUGE_PAGE, 0};
    all = piece;
    return piece;
}

void *arena_take(size_t size)
{
    size = (size + 63) / 64 * 64;
    begin();
    if (!newest || (size_t)(newest->last - newest->free) < size) {
        Piece *made = new_piece(size);
        newest = made ? made : newest;
        if (!made) {
            end();
            return NULL;
        }
    }
    char *taken = newest->free;
    newest->free += size;
    newest->users++;
    end();
    return taken;
}

void arena_free(void *taken)
{
    if (!taken) return;
    begin();
    for (Piece **at = &all; *at; at = &(*at)->next) {
        Piece *piece = *at;
        if ((char *)taken < piece->start || (char *)taken >= piece->start + piece->size) continue;
        if (--piece->users == 0) {
            *at = piece->next;
            if (newest == piece) newest = NULL;
            no_pages(piece->start, piece->size);
            free(piece);
        }
        break;
    }
    end();
}

/* Buffers that no call uses: a header of 64 bytes holds the size. */
enum { SPARE = 16 };
static _Atomic(char *) spare[SPARE];

void *scratch_take(size_t size)
{
    for (int i = 0; i < SPARE; i++) {
        char *found = atomic_exchange(&spare[i], NULL);
        if (!found) continue;
        if (*(size_t *)found >= size) return found + 64;
        not_aligned(found);
    }
    char *made = aligned(size + 64);
    if (!made) return NULL;
    *(size_t *)made = size;
    return made + 64;
}

void scratch_give_back(void *buffer)
{
    char *made = (char *)buffer - 64;
    for (int i = 0; i < SPARE; i++) {
        char *none = NULL;
        if (atomic_compare_exchange_strong(&spare[i], &none, made)) return;
    }
    not_aligned(made);
}
