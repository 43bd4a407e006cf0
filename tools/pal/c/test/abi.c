/* What the header's functions ask of TrustVisor, told by a stand-in for it, and what they refuse without asking. Runs on
 * any machine; prints the line of the first thing that is wrong. The Rust SDK's tests have the same cases. */
#define XMHF_PAL_INSIDE
#define XMHF_PAL_VMCALL ask
#include "xmhf_pal.h"
#include <stdio.h>
#include <sys/mman.h>

#define NEED(what) if (!(what)) return __LINE__

static struct { unsigned count; uint32_t command; uintptr_t c, d, si, di; } asked;
static struct svc_utpm_input in;
static struct svc_utpm_output out;

uint32_t ask(uint32_t command, uintptr_t c, uintptr_t d, uintptr_t si, uintptr_t di)
{
    asked.count++;
    asked.command = command, asked.c = c, asked.d = d, asked.si = si, asked.di = di;
    if (command == TV_HC_UTPM_SEAL || command == XMHF_HC_UTPM_SEAL_TO_SIGNER)
        in = *(struct svc_utpm_input *)c, out = *(struct svc_utpm_output *)si;
    if (command == TV_HC_UTPM_UNSEAL || command == XMHF_HC_UTPM_UNSEAL_OWN)
        in = *(struct svc_utpm_input *)c, out = *(struct svc_utpm_output *)d;
    if (command == TV_HC_UTPM_QUOTE)
        out = *(struct svc_utpm_output *)d;
    return 0;
}

static int far_pages(uint8_t *near, uint8_t *far)
{
    const uint8_t selection[3] = { 1, SVC_UTPM_SHA256 | SVC_UTPM_AS_THEY_ARE, 1 };
    uint8_t digest[20], nonce[32];
    uint32_t *length = (uint32_t *)near, *far_length = (uint32_t *)far, *more = length + 1;
    uint8_t *data = near + 64, *far_data = far + 64;

    *length = *far_length = 256, *more = 39;
    NEED(svc_utpm_seal(far_data, 16, selection, data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_seal(data, 16, selection, far_data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_seal(data, 16, selection, data, far_length) == SVC_UTPM_BAD_ADDRESS);
    NEED(xmhf_utpm_seal_to_signer(far_data, 16, 1, data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(xmhf_utpm_seal_to_signer(data, 16, 1, far_data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(xmhf_utpm_seal_to_signer(data, 16, 1, data, far_length) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_unseal(far_data, 16, data, length, digest) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_unseal(data, 16, far_data, length, digest) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_unseal(data, 16, data, far_length, digest) == SVC_UTPM_BAD_ADDRESS);
    NEED(xmhf_utpm_unseal_own(data, 16, far_data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_quote(nonce, selection, far_data, length, data, more) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_quote(nonce, selection, data, far_length, data, more) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_quote(nonce, selection, data, length, far_data, more) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_quote(nonce, selection, data, length, data, far_length) == SVC_UTPM_BAD_ADDRESS);
    NEED(svc_utpm_seal((void *)(uintptr_t)0xfffffff8u, 16, selection, data, length) == SVC_UTPM_BAD_ADDRESS);
    NEED(asked.count == 0);
    return 0;
}

static int near_pages(uint8_t *near)
{
    const uint8_t selection[3] = { 1, SVC_UTPM_SHA256 | SVC_UTPM_AS_THEY_ARE, 1 };
    uint8_t digest[20], nonce[32];
    uint32_t *length = (uint32_t *)near, *more = length + 1;
    uint8_t *data = near + 64, *blob = near + 512;

    *length = 256, *more = 39;
    NEED(!svc_utpm_seal(data, 16, selection, blob, length) && asked.command == 10);
    NEED(in.address == (uintptr_t)data && in.bytes == 16 && asked.d == (uintptr_t)selection);
    NEED(out.address == (uintptr_t)blob && out.bytes_address == (uintptr_t)length);
    NEED(!svc_utpm_unseal(blob, 92, data, length, digest) && asked.command == 11);
    NEED(in.address == (uintptr_t)blob && in.bytes == 92 && asked.si == (uintptr_t)digest);
    NEED(out.address == (uintptr_t)data && out.bytes_address == (uintptr_t)length);
    NEED(!xmhf_utpm_unseal_own(blob, 92, data, length) && asked.command == 15);
    NEED(!svc_utpm_quote(nonce, selection, data, length, blob, more) && asked.command == 12);
    NEED(out.address == (uintptr_t)data && asked.si == (uintptr_t)nonce && asked.c == (uintptr_t)selection);
    NEED(!xmhf_utpm_seal_to_signer(data, 16, 3, blob, length) && asked.command == 19 && asked.d == 3);
    NEED(in.address == (uintptr_t)data && in.bytes == 16 && out.address == (uintptr_t)blob);
    NEED(!xmhf_pal_log("text", 4) && asked.command == 20 && asked.d == 4 && *(const char *)asked.c == 't');
    NEED(asked.count == 6);
    return 0;
}

int main(void)
{
    const int rights = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    uint8_t *near = mmap((void *)0x50000000ul, 4096, rights, flags, -1, 0);
    uint8_t *far = mmap((void *)0x150000000ul, 4096, rights, flags, -1, 0);
    int line = near == MAP_FAILED || far == MAP_FAILED ? __LINE__ : far_pages(near, far);

    line = line ? line : near_pages(near);
    if (line)
        printf("line %d\n", line);
    return line != 0;
}
