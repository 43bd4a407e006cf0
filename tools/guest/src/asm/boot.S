# From the boot sector to long mode. Everything here is linked below 64 KiB, so that one address serves
# real mode with segment 0, flat protected mode and long mode.
#
# Memory (guest.ld): 0x7c00 boot sector, 0x7e00 the rest of the disk image, then zeroed data. The disk is a
# flat copy of that memory, sector 0 at 0x7c00.

.section .mbr, "ax"
.code16
.globl _start
_start:
    # What the firmware left goes onto its own stack first: nothing is changed before it is recorded.
    pushf
    pushad
    push cs
    push ds
    push es
    push ss
    push fs
    push gs
    .byte 0xea                          # far jump to 0:mbr_main
    .word mbr_main, 0
mbr_main:
    xor ax, ax
    mov es, ax
    cld
    mov bp, sp
    mov di, offset boot_entry_state
    mov cx, 23
1:  mov ax, ss:[bp]
    stosw
    add bp, 2
    loop 1b
    xor ax, ax
    mov ds, ax
    mov eax, cr0
    mov [boot_entry_cr0], eax
    xor ax, ax
    cli
    mov ss, ax
    mov sp, 0x7c00
    sti
    mov [boot_drive], dl

    # The rest of the image, 64 sectors a call (Enhanced Disk Drive, "Extended Read").
2:  mov cx, [sectors_left]
    test cx, cx
    jz stage2
    cmp cx, 64
    jbe 3f
    mov cx, 64
3:  mov [dap_count], cx
    mov dl, [boot_drive]
    mov si, offset dap
    mov ah, 0x42
    int 0x13
    jc 4f
    mov cx, [dap_count]
    sub [sectors_left], cx
    add [dap_lba], cx
    shl cx, 5
    add [dap_segment], cx
    jmp 2b

4:  mov si, offset mbr_error
    mov dx, 0x3fb
    mov al, 3
    out dx, al
    mov dx, 0x3f8
5:  lodsb
    test al, al
    jz 6f
    out dx, al
    jmp 5b
6:  hlt
    jmp 6b

mbr_error: .asciz "FAIL guest: disk read\n"
.balign 4
dap:
    .byte 16, 0
dap_count: .word 0
    .word 0
dap_segment: .word 0x7e0
dap_lba: .quad 1
sectors_left: .word _disk_sectors - 1
.globl boot_drive, boot_entry_state, boot_entry_cr0
boot_drive: .byte 0
.balign 4
boot_entry_cr0: .long 0
boot_entry_state: .fill 23, 2, 0        # gs fs ss es ds cs, edi esi ebp esp ebx edx ecx eax, flags

.section .boot, "ax"
.code16
stage2:
    mov di, offset bios_e820_20
    mov si, offset bios_e820_20_count
    mov ebp, 20
    call e820_collect
    mov di, offset bios_e820_24
    mov si, offset bios_e820_24_count
    mov ebp, 24
    call e820_collect

    # INT 15h, AX=E801h and AH=88h.
    xor cx, cx
    xor dx, dx
    mov ax, 0xe801
    int 0x15
    mov [bios_e801 + 0], ax
    mov [bios_e801 + 2], bx
    mov [bios_e801 + 4], cx
    mov [bios_e801 + 6], dx
    setc al
    mov [bios_e801 + 8], al
    mov ah, 0x88
    int 0x15
    mov [bios_88], ax
    setc al
    mov [bios_88 + 2], al

    call a20_state
    mov [boot_a20], al
    test al, al
    jnz 1f
    in al, 0x92
    or al, 2
    and al, 0xfe
    out 0x92, al
1:  cli
    mov al, 0xff                        # no interrupt lines: the tests ask for what they want
    out 0x21, al
    out 0xa1, al
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0xea
    .word stage3, 0x18

# EBP = bytes asked for, DI = 64 records of 32 bytes, SI = count. A record keeps the 24 bytes of buffer, the
# returned ECX and the returned EBX.
e820_collect:
    xor ebx, ebx
1:  mov eax, 0xe820
    mov edx, 0x534d4150
    mov ecx, ebp
    push si
    push ebp
    int 0x15
    pop ebp
    pop si
    jc 2f
    cmp eax, 0x534d4150
    jne 2f
    mov [di + 24], ecx
    mov [di + 28], ebx
    add di, 32
    inc word ptr [si]
    cmp word ptr [si], 64
    je 2f
    test ebx, ebx
    jnz 1b
2:  ret

# AL = 1 where address line 20 is on: 0x500 and 0x100500 then differ.
a20_state:
    push ds
    mov ax, 0xffff
    mov ds, ax
    xor al, al
    mov bl, byte ptr [0x510]
    mov byte ptr es:[0x500], 0x5a
    mov byte ptr [0x510], 0xa5
    cmp byte ptr es:[0x500], 0x5a
    mov byte ptr [0x510], bl
    sete al
    pop ds
    ret

.code32
stage3:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x7c00
    mov edi, offset _bss_start
    mov ecx, offset _bss_end
    sub ecx, edi
    shr ecx, 2
    xor eax, eax
    rep stosd

    # 4 GiB by 2 MiB pages, twice: supervisor at 0, user at 1 << 39.
    mov edi, offset page_directories
    mov eax, 0x87
    mov ecx, 2048
1:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop 1b
    mov edi, offset pdpt
    mov eax, offset page_directories + 7
    mov ecx, 4
2:  mov [edi], eax
    add edi, 8
    add eax, 0x1000
    loop 2b
    mov eax, offset pdpt + 3
    mov [pml4], eax
    mov eax, offset pdpt + 7
    mov [pml4 + 8], eax
    mov ebx, offset long_bsp
    jmp enter_long_mode

# To 64-bit mode with our tables; EBX = where to go on. Used by every CPU and by the way back from legacy
# modes; only EBX, ESP and EBP, ESI, EDI survive.
.globl enter_long_mode
enter_long_mode:
    lgdt [gdt_pointer]
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, offset pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    .byte 0xea
    .long long_entry
    .word 0x08
.code64
long_entry:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov ebx, ebx
    jmp rbx
long_bsp:
    mov esp, offset cpu_blocks + 0x8000
    xor ebp, ebp
    call guest_start
1:  hlt
    jmp 1b

# Start-up IPIs lead here: page _trampoline.
.section .trampoline, "ax"
.code16
.globl ap_trampoline
ap_trampoline:
    # The state that INIT left, for a test to look at.
    mov [ap_entry_state + 0], eax
    mov [ap_entry_state + 4], ebx
    mov [ap_entry_state + 8], ecx
    mov [ap_entry_state + 12], edx
    mov [ap_entry_state + 16], esi
    mov [ap_entry_state + 20], edi
    mov [ap_entry_state + 24], ebp
    mov [ap_entry_state + 28], esp
    mov eax, cr0
    mov [ap_entry_state + 32], eax
    mov eax, cr4
    mov [ap_entry_state + 36], eax
    mov eax, cr3
    mov [ap_entry_state + 40], eax
    mov ax, cs
    mov [ap_entry_state + 44], ax
    mov ax, ss
    mov [ap_entry_state + 46], ax
    mov ecx, 0xc0000080
    rdmsr
    mov [ap_entry_state + 48], eax
    sidt [ap_entry_state + 54]
    cli
    xor ax, ax
    mov ds, ax
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0xea
    .word ap_protected, 0x18
.code32
ap_protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov ebx, offset ap_long
    jmp enter_long_mode
.code64
ap_long:
    # Each arrival takes a number, hence a stack of its own.
    mov edi, 1
    lock xadd [ap_arrivals], edi
    mov eax, edi
    inc eax
    shl eax, 15
    lea rsp, [rax + cpu_blocks]
    xor ebp, ebp
    call guest_ap_start
1:  hlt
    jmp 1b

.section .lowdata, "aw"
.balign 16
.globl gdt, gdt_pointer
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 08 code, 64-bit
    .quad 0x00cf93000000ffff            # 10 data
    .quad 0x00cf9b000000ffff            # 18 code, 32-bit
    .quad 0x00009b000000ffff            # 20 code, 16-bit
    .quad 0x000093000000ffff            # 28 data, 16-bit
    .quad 0x00cffb000000ffff            # 30 code, 32-bit, ring 3
    .quad 0x00cff3000000ffff            # 38 data, ring 3
    .quad 0x00affb000000ffff            # 40 code, 64-bit, ring 3
    .quad 0                             # 48 TSS of legacy modes
    .quad 0, 0, 0                       # 50 58 60 free for a test
    .quad 0                             # 68
    .fill 16, 8, 0                      # 70 TSS of CPU 0, 80 of CPU 1, ...
gdt_end:
.balign 4
    .word 0
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
    .long 0
.globl ap_arrivals, ap_entry_state, boot_a20
ap_entry_state: .fill 15, 4, 0
ap_arrivals: .long 1
boot_a20: .byte 0
.globl bios_e820_20, bios_e820_20_count, bios_e820_24, bios_e820_24_count, bios_e801, bios_88
.balign 4
bios_e820_20_count: .long 0
bios_e820_24_count: .long 0
bios_e801: .fill 5, 2, 0
bios_88: .fill 2, 2, 0
.balign 16
bios_e820_20: .fill 64 * 32, 1, 0xee
bios_e820_24: .fill 64 * 32, 1, 0xee

.section .bss.tables, "aw", @nobits
.balign 4096
.globl pml4, pdpt, page_directories
pml4: .skip 4096
pdpt: .skip 4096
page_directories: .skip 4 * 4096
