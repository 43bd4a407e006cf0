/* PALs in C: pieces of a program that the operating system can neither read nor change. See README.md.
 *
 * With XMHF_PAL_INSIDE defined, this is for the PAL's own file, which is compiled freestanding for general registers
 * alone and linked with pal.ld. Without it, for the program around, which links libxmhf-pal.a. */
#ifndef XMHF_PAL_H
#define XMHF_PAL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- The original's numbers and lists, for those who lay out memory themselves ------------------------------- */

enum xmhf_pal_command {
    TV_HC_REG = 1, TV_HC_UNREG = 2, TV_HC_SHARE = 6,
    TV_HC_UTPM_PCRREAD = 7, TV_HC_UTPM_PCREXT = 8, TV_HC_UTPM_GENRAND = 9, TV_HC_UTPM_SEAL = 10,
    TV_HC_UTPM_UNSEAL = 11, TV_HC_UTPM_QUOTE = 12, TV_HC_UTPM_ID_GETPUB = 13,
    /* Ours. */
    XMHF_HC_REG_WITH_FLAGS = 14, XMHF_HC_UTPM_UNSEAL_OWN = 15, XMHF_HC_ABORT = 16,
    XMHF_HC_REG_SIGNED = 18, XMHF_HC_UTPM_SEAL_TO_SIGNER = 19, XMHF_HC_LOG = 20,
    TV_HC_TEST = 255
};
/* What a PAL is registered with; part of what it is. Pages can be shared with it; a call of it can be given up; it can
 * print to the hypervisor's log, and shares no sealed data with PALs that cannot. A signed PAL has its signer's. */
enum xmhf_pal_flags { XMHF_PAL_ACCEPTS_SHARE = 1, XMHF_PAL_ABORTABLE = 2, XMHF_PAL_DEBUG = 4 };
/* Added to command and CPUID leaf in a guest of a guest: define XMHF_PAL_L2. */
#ifdef XMHF_PAL_L2
#define XMHF_PAL_OFFSET 0x4c415000u
#define XMHF_PAL_LEAF 0x4c415000u
#else
#define XMHF_PAL_OFFSET 0u
#define XMHF_PAL_LEAF 0x7a567254u
#endif

enum tv_pal_section_type {
    TV_PAL_SECTION_CODE = 1, TV_PAL_SECTION_DATA = 2, TV_PAL_SECTION_PARAM = 3, TV_PAL_SECTION_STACK = 4,
    TV_PAL_SECTION_SHARED_CODE = 5
};
struct tv_pal_section { uint32_t type, page_num; uint64_t start_addr; };
struct tv_pal_sections { uint32_t num_sections, pad; struct tv_pal_section sections[64]; };

enum tv_pal_param_type { TV_PAL_PM_INTEGER = 1, TV_PAL_PM_POINTER = 2 };
/* size: in words of what a pointer names. */
struct tv_pal_param { uint32_t type, pad; uint64_t size; };
struct tv_pal_params { uint32_t num_params, pad; struct tv_pal_param params[64]; };

/* A hypercall; 0 is success. The words are as wide as the program's. */
#ifdef XMHF_PAL_VMCALL
uint32_t XMHF_PAL_VMCALL(uint32_t command, uintptr_t c, uintptr_t d, uintptr_t si, uintptr_t di);
#define xmhf_pal_vmcall XMHF_PAL_VMCALL
#else
static inline uint32_t xmhf_pal_vmcall(uint32_t command, uintptr_t c, uintptr_t d, uintptr_t si, uintptr_t di)
{
    uintptr_t a = command + XMHF_PAL_OFFSET;
    __asm__ volatile("vmcall" : "+a"(a) : "c"(c), "d"(d), "S"(si), "D"(di) : "memory");
    return (uint32_t)a;
}
#endif

/* The PAL's number; -1 outside a PAL, -2 without TrustVisor. */
static inline int64_t xmhf_pal_number(void)
{
    uint32_t a = XMHF_PAL_LEAF, b, c = 0, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a != 0x7a767274u)
        return -2;
    return b == 0xffffffffu ? -1 : (int64_t)b;
}

static inline int tv_pal_register(const struct tv_pal_sections *sections, const struct tv_pal_params *params,
                                  const void *entry)
{
    return (int)xmhf_pal_vmcall(TV_HC_REG, (uintptr_t)sections, 0, (uintptr_t)params, (uintptr_t)entry);
}

static inline int tv_pal_unregister(const void *entry)
{
    return (int)xmhf_pal_vmcall(TV_HC_UNREG, (uintptr_t)entry, 0, 0, 0);
}

static inline int tv_pal_share(const void *entry, const uint32_t *addresses, const uint32_t *bytes, size_t count)
{
    return (int)xmhf_pal_vmcall(TV_HC_SHARE, (uintptr_t)entry, (uintptr_t)addresses, (uintptr_t)bytes, count);
}

#ifdef XMHF_PAL_INSIDE

/* --- Inside a PAL --------------------------------------------------------------------------------------------- */

/* The PAL's function: uintptr_t pal_entry(...), with integers and pointers to what is copied in and back out.
 * Static variables keep their values from one call to the next. 0 is success in what follows. */

static inline uint32_t svc_utpm_rand(void *bytes, uint32_t *count)
{
    return xmhf_pal_vmcall(TV_HC_UTPM_GENRAND, (uintptr_t)bytes, (uintptr_t)count, 0, 0);
}

static inline uint32_t svc_utpm_pcr_read(uint32_t index, uint8_t digest[20])
{
    return xmhf_pal_vmcall(TV_HC_UTPM_PCRREAD, index, (uintptr_t)digest, 0, 0);
}

static inline uint32_t svc_utpm_pcr_extend(uint32_t index, const uint8_t digest[20])
{
    return xmhf_pal_vmcall(TV_HC_UTPM_PCREXT, index, (uintptr_t)digest, 0, 0);
}

/* What follows describes buffers by 32 bits: they lie below 4 GiB, where files linked with pal.ld are, and the stack
 * where the library puts it. Others are refused, for the microTPM would read and write elsewhere. */
struct svc_utpm_input { uint32_t address, bytes; };
struct svc_utpm_output { uint32_t address, bytes_address; };
enum { SVC_UTPM_BAD_ADDRESS = 21, XMHF_UTPM_FOREIGN_BLOB = 42 };

static inline int xmhf_pal_is_near(const void *start, uintptr_t bytes)
{
    return (uint64_t)(uintptr_t)start <= 0xffffffffu && (uint64_t)bytes <= 0x100000000u - (uint64_t)(uintptr_t)start;
}

/* A selection of registers, bit 0 for register 0, of the SHA-256 bank: `{ 1, SVC_UTPM_SHA256, map }`. For a seal, with
 * SVC_UTPM_AS_THEY_ARE added: data opens where these registers are as they are now. Register 0 is the PAL's
 * measurement. */
enum { SVC_UTPM_SHA256 = 0x80, SVC_UTPM_AS_THEY_ARE = 0x40 };

/* The blob takes at most 128 bytes more than the data. */
static inline uint32_t svc_utpm_seal(const void *data, uint32_t bytes, const uint8_t *selection, void *blob,
                                     uint32_t *blob_bytes)
{
    struct svc_utpm_input in = { (uint32_t)(uintptr_t)data, bytes };
    struct svc_utpm_output out = { (uint32_t)(uintptr_t)blob, (uint32_t)(uintptr_t)blob_bytes };
    if (!xmhf_pal_is_near(data, bytes) || !xmhf_pal_is_near(blob, (uintptr_t)bytes + 128) ||
        !xmhf_pal_is_near(blob_bytes, sizeof *blob_bytes))
        return SVC_UTPM_BAD_ADDRESS;
    return xmhf_pal_vmcall(TV_HC_UTPM_SEAL, (uintptr_t)&in, (uintptr_t)selection, (uintptr_t)&out, 0);
}

/* Opens for PALs of the same signer and product, from the security version `minimum` on, which is at most the PAL's own. */
static inline uint32_t xmhf_utpm_seal_to_signer(const void *data, uint32_t bytes, uint32_t minimum, void *blob,
                                                uint32_t *blob_bytes)
{
    struct svc_utpm_input in = { (uint32_t)(uintptr_t)data, bytes };
    struct svc_utpm_output out = { (uint32_t)(uintptr_t)blob, (uint32_t)(uintptr_t)blob_bytes };
    if (!xmhf_pal_is_near(data, bytes) || !xmhf_pal_is_near(blob, (uintptr_t)bytes + 128) ||
        !xmhf_pal_is_near(blob_bytes, sizeof *blob_bytes))
        return SVC_UTPM_BAD_ADDRESS;
    return xmhf_pal_vmcall(XMHF_HC_UTPM_SEAL_TO_SIGNER, (uintptr_t)&in, minimum, (uintptr_t)&out, 0);
}

/* Writes at most 256 characters to the hypervisor's log, from a PAL that is XMHF_PAL_DEBUG. */
static inline uint32_t xmhf_pal_log(const char *text, uint32_t count)
{
    return xmhf_pal_vmcall(XMHF_HC_LOG, (uintptr_t)text, count, 0, 0);
}

/* The data takes at most as many bytes as the blob. Any PAL can seal for this one, so this opens what anybody chose: look
 * at the digest that the selected registers had where it was sealed. With a null pointer for it only what this PAL
 * sealed itself opens, with register 0 selected; else XMHF_UTPM_FOREIGN_BLOB. */
static inline uint32_t svc_utpm_unseal(const void *blob, uint32_t bytes, void *data, uint32_t *data_bytes,
                                       uint8_t digest_at_creation[20])
{
    struct svc_utpm_input in = { (uint32_t)(uintptr_t)blob, bytes };
    struct svc_utpm_output out = { (uint32_t)(uintptr_t)data, (uint32_t)(uintptr_t)data_bytes };
    uint32_t command = digest_at_creation ? TV_HC_UTPM_UNSEAL : XMHF_HC_UTPM_UNSEAL_OWN;
    if (!xmhf_pal_is_near(blob, bytes) || !xmhf_pal_is_near(data, bytes) ||
        !xmhf_pal_is_near(data_bytes, sizeof *data_bytes))
        return SVC_UTPM_BAD_ADDRESS;
    return xmhf_pal_vmcall(command, (uintptr_t)&in, (uintptr_t)&out, (uintptr_t)digest_at_creation, 0);
}

/* What this PAL sealed itself. */
static inline uint32_t xmhf_utpm_unseal_own(const void *blob, uint32_t bytes, void *data, uint32_t *data_bytes)
{
    return svc_utpm_unseal(blob, bytes, data, data_bytes, (uint8_t *)0);
}

/* A nonce of 32 bytes; 256 for the signature, 7 and 32 a register for the composite. Both numbers say before what room
 * there is, and behind what is used. Composite, nonce and signature one behind the other are the file that
 * `xmhf verify-quote` reads. */
static inline uint32_t svc_utpm_quote(const uint8_t *nonce, const uint8_t *selection, void *signature,
                                      uint32_t *signature_bytes, void *composite, uint32_t *composite_bytes)
{
    struct svc_utpm_output out = { (uint32_t)(uintptr_t)signature, (uint32_t)(uintptr_t)signature_bytes };
    struct svc_utpm_output more = { (uint32_t)(uintptr_t)composite, (uint32_t)(uintptr_t)composite_bytes };
    if (!xmhf_pal_is_near(signature_bytes, sizeof *signature_bytes) ||
        !xmhf_pal_is_near(composite_bytes, sizeof *composite_bytes) ||
        !xmhf_pal_is_near(signature, *signature_bytes) || !xmhf_pal_is_near(composite, *composite_bytes))
        return SVC_UTPM_BAD_ADDRESS;
    return xmhf_pal_vmcall(TV_HC_UTPM_QUOTE, (uintptr_t)selection, (uintptr_t)&out, (uintptr_t)nonce,
                           (uintptr_t)&more);
}

/* The key that quotes are verified with: DER with room for 270 bytes, the modulus with room for 256. */
static inline uint32_t svc_utpm_id_getpub(void *key, uint32_t *bytes)
{
    return xmhf_pal_vmcall(TV_HC_UTPM_ID_GETPUB, (uintptr_t)key, (uintptr_t)bytes, 0, 0);
}

/* Ends the PAL for good. What it could write is zeroed, and the caller told. */
static inline void xmhf_pal_give_up(void)
{
    __asm__ volatile("ud2");
    __builtin_unreachable();
}

/* The compiler calls these by itself. */
__attribute__((weak)) void *memset(void *to, int value, size_t count)
{
    volatile unsigned char *place = (volatile unsigned char *)to;
    while (count--)
        *place++ = (unsigned char)value;
    return to;
}

__attribute__((weak)) void *memcpy(void *to, const void *from, size_t count)
{
    volatile unsigned char *place = (volatile unsigned char *)to;
    const unsigned char *source = (const unsigned char *)from;
    while (count--)
        *place++ = *source++;
    return to;
}

#else

/* --- Outside: libxmhf-pal.a ----------------------------------------------------------------------------------- */

/* A registered PAL. What is in it is the library's. */
struct xmhf_pal { _Alignas(16) unsigned char opaque[128]; };
/* Why something failed, and what to do about it. */
struct xmhf_pal_error { char text[256]; };

#define XMHF_PAL_INTEGER { TV_PAL_PM_INTEGER, 0, 1 }
/* Names a value of this type, whose size is a multiple of a word's. */
#define XMHF_PAL_POINTER(type) { TV_PAL_PM_POINTER, 0, sizeof(type) / sizeof(uintptr_t) }

/* The bytes of the PAL's file at `path`, as an array `name`, ending at `name##_end`. */
#define XMHF_PAL_IMAGE(name, path)                                                                                  \
    __asm__(".pushsection .rodata\n.balign 16\n.globl " #name "\n" #name ":\n.incbin \"" path "\"\n"                \
            ".globl " #name "_end\n" #name "_end:\n.popsection");                                                   \
    extern const unsigned char name[], name##_end[]

/* 1 where TrustVisor is there. */
int xmhf_pal_present(void);

/* Maps the PAL in the file's `bytes` bytes and hides it. `parameters` stay until it is unregistered; `flags` are of enum
 * xmhf_pal_flags. 0, or a number and the reason in `error`, which may be NULL. */
int xmhf_pal_register_with(struct xmhf_pal *pal, const void *file, size_t bytes, const struct tv_pal_param *parameters,
                           size_t count, uint32_t flags, struct xmhf_pal_error *error);

/* The same without flags. */
static inline int xmhf_pal_register(struct xmhf_pal *pal, const void *file, size_t bytes,
                                    const struct tv_pal_param *parameters, size_t count, struct xmhf_pal_error *error)
{
    return xmhf_pal_register_with(pal, file, bytes, parameters, count, 0, error);
}

/* Gives up a call that its thread has left for good, of a PAL that is XMHF_PAL_ABORTABLE; till then others find it busy. */
int xmhf_pal_abort(const struct xmhf_pal *pal, struct xmhf_pal_error *error);

/* Runs it with one word for each parameter. */
int xmhf_pal_call(const struct xmhf_pal *pal, const uintptr_t *words, uintptr_t *result,
                  struct xmhf_pal_error *error);

/* Gives the PAL, if it is XMHF_PAL_ACCEPTS_SHARE, `count` ranges of the program's pages below 4 GiB, which both use from then on; addresses and sizes
 * are multiples of 4096. The PAL finds them at the same addresses. */
int xmhf_pal_share(const struct xmhf_pal *pal, const uint32_t *addresses, const uint32_t *bytes, size_t count,
                   struct xmhf_pal_error *error);

/* Ends it and gives its memory back. */
int xmhf_pal_unregister(struct xmhf_pal *pal, struct xmhf_pal_error *error);

#endif

#ifdef __cplusplus
}
#endif

#endif
