/* A PAL that tries each function of the header; gives the line of the first that does not do what it should, or 0. */
#include "xmhf_pal.h"

#define NEED(what) if (!(what)) return __LINE__

static const uint8_t as_they_are[3] = { 1, SVC_UTPM_SHA256 | SVC_UTPM_AS_THEY_ARE, 3 };
static const uint8_t first[3] = { 1, SVC_UTPM_SHA256, 1 };
static uint8_t secret[32], blob[32 + 128], opened[32 + 128], digest[20], old[20], nonce[32], signature[256];
static uint8_t composite[7 + 32], key[270];

static int differ(const uint8_t *one, const uint8_t *other, unsigned count)
{
    while (count--)
        if (one[count] != other[count])
            return 1;
    return 0;
}

uintptr_t pal_entry(uint32_t shared, uint64_t *sum)
{
    uint32_t count = sizeof(secret), used = 0, more = 0;

    NEED(xmhf_pal_number() >= 0);
    NEED(!svc_utpm_rand(secret, &count) && count == sizeof(secret) && differ(secret, nonce, 32));
    NEED(!svc_utpm_seal(secret, sizeof(secret), as_they_are, blob, &used) && used > sizeof(secret));
    NEED(!svc_utpm_unseal(blob, used, opened, &more, digest) && more == sizeof(secret));
    NEED(!differ(opened, secret, sizeof(secret)));
    NEED(!xmhf_utpm_unseal_own(blob, used, opened, &more) && more == sizeof(secret));
    blob[used / 2] ^= 1;
    NEED(svc_utpm_unseal(blob, used, opened, &more, digest) == 1);
    blob[used / 2] ^= 1;
    NEED(!svc_utpm_pcr_read(1, old) && !svc_utpm_pcr_extend(1, digest) && !svc_utpm_pcr_read(1, digest));
    NEED(differ(old, digest, sizeof(digest)));
    NEED(svc_utpm_unseal(blob, used, opened, &more, digest) == 4);
    used = sizeof(signature), more = sizeof(composite);
    NEED(!svc_utpm_quote(nonce, first, signature, &used, composite, &more));
    NEED(used == sizeof(signature) && more == sizeof(composite));
    count = sizeof(key);
    NEED(!svc_utpm_id_getpub(key, &count) && count == sizeof(key));
    *sum = ++*(volatile uint32_t *)(uintptr_t)shared;
    return 0;
}
