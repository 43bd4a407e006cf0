/* Registers the PAL of counter.c, shares a page with it, and calls it. */
#include <stdio.h>
#include <sys/mman.h>
#include "xmhf_pal.h"

#define SHARED 0x50000000u

XMHF_PAL_IMAGE(counter, "counter.pal");
static const struct tv_pal_param parameters[] = { XMHF_PAL_INTEGER, XMHF_PAL_POINTER(uint64_t) };

int main(void)
{
    struct xmhf_pal pal;
    struct xmhf_pal_error error;
    const uint32_t address = SHARED, bytes = 4096;
    uint64_t sum = 0;
    uintptr_t line = 1, words[] = { SHARED, (uintptr_t)&sum };
    volatile uint32_t *page = mmap((void *)(uintptr_t)SHARED, bytes, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    *page = 41;
    if (!xmhf_pal_present() ||
        xmhf_pal_register_with(&pal, counter, (size_t)(counter_end - counter), parameters, 2, XMHF_PAL_ACCEPTS_SHARE,
                               &error) ||
        xmhf_pal_share(&pal, &address, &bytes, 1, &error) || xmhf_pal_call(&pal, words, &line, &error) ||
        xmhf_pal_unregister(&pal, &error)) {
        printf("Error: %s\n", error.text);
        return 1;
    }
    printf("line %u, %llu and %u\n", (unsigned)line, (unsigned long long)sum, *page);
    return 0;
}
