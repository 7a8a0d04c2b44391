/* Counts large copies and large allocations of the process it is preloaded into. The counters lie in a file that
 * ADJOIN_TEST_COUNTERS names, so that a test reads them from outside: an account that is not the server's own. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE 4096

struct counters {
    uint64_t copies;
    uint64_t copied_bytes;
    uint64_t allocations;
};

static struct counters fallback;
static struct counters *counters = &fallback;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("ADJOIN_TEST_COUNTERS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *shared = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shared != MAP_FAILED) counters = shared;
}

static void copied(size_t size) {
    if (size < LARGE) return;
    __atomic_fetch_add(&counters->copies, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&counters->copied_bytes, size, __ATOMIC_RELAXED);
}

static void allocated(size_t size) {
    if (size >= LARGE) __atomic_fetch_add(&counters->allocations, 1, __ATOMIC_RELAXED);
}

/* A plain loop: this file is compiled so that the compiler does not turn it into a call of itself. */
void *memmove(void *to, const void *from, size_t size) {
    unsigned char *t = to;
    const unsigned char *f = from;
    copied(size);
    if (t < f) {
        for (size_t i = 0; i < size; i++) t[i] = f[i];
    } else {
        for (size_t i = size; i > 0; i--) t[i - 1] = f[i - 1];
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t size) { return memmove(to, from, size); }

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

void *malloc(size_t size) {
    allocated(size);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocated(count * size);
    return __libc_calloc(count, size);
}

void *realloc(void *old, size_t size) {
    allocated(size);
    return __libc_realloc(old, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
    allocated(size);
    *out = __libc_memalign(alignment, size);
    return *out ? 0 : 12;
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocated(size);
    return __libc_memalign(alignment, size);
}
