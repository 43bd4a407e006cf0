/* Registers the PAL of counter.c and calls it twice. */
#include <stdio.h>
#include "xmhf_pal.h"

XMHF_PAL_IMAGE(counter, "counter.pal");
static const struct tv_pal_param parameters[] = { XMHF_PAL_INTEGER, XMHF_PAL_POINTER(uint64_t) };

int main(void)
{
    struct xmhf_pal pal;
    struct xmhf_pal_error error;
    uint64_t sum = 0;
    uintptr_t inside = 0, words[] = { 5, (uintptr_t)&sum };

    if (xmhf_pal_register(&pal, counter, (size_t)(counter_end - counter), parameters, 2, &error) ||
        xmhf_pal_call(&pal, words, &inside, &error) || xmhf_pal_call(&pal, words, &inside, &error) ||
        xmhf_pal_unregister(&pal, &error)) {
        printf("Error: %s\n", error.text);
        return 1;
    }
    printf("%s: %llu\n", inside ? "inside" : "outside", (unsigned long long)sum);
    return 0;
}
