/* A PAL: counts, and nobody else can turn its counter back. */
#include "xmhf_pal.h"

static uint64_t total;

uintptr_t pal_entry(uint32_t step, uint64_t *sum)
{
    total += step;
    *sum = total;
    return xmhf_pal_number() >= 0;
}
