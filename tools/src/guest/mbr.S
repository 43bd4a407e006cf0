# A boot sector that asks the BIOS for the video mode (INT 10H), its own sector (INT 13H) and the memory map
# (INT 15H, E820H), prints the map on COM1 and cuts the power. BIOS services are 16-bit real-mode code, so each
# one also shows that the guest's real mode works.

        .set    COM1, 0x3f8
        .set    SECTOR, 0x8000          # where the sector is read to
        .set    RECORD, 0x9000          # where the BIOS puts a record of the memory map
        .set    SMAP, 0x534d4150        # "SMAP"

        .code16
        .globl  start
        .text

start:  cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        ljmp    $0, $segments
segments:
        sti
        cld
        movb    %dl, drive

        movw    $COM1 + 3, %dx          # divisor 1, then 8 data bits, one stop bit, no parity
        movb    $0x83, %al
        outb    %al, %dx
        movw    $COM1, %dx
        movb    $1, %al
        outb    %al, %dx
        incw    %dx
        xorb    %al, %al
        outb    %al, %dx
        movw    $COM1 + 3, %dx
        movb    $0x03, %al
        outb    %al, %dx

        movb    $'v', reason
        movb    $0x0f, %ah              # video mode: 80 columns after a BIOS
        int     $0x10
        cmpb    $80, %ah
        jne     failed

        movb    $'d', reason
        movw    $0x0201, %ax            # one sector from the drive that DL named
        movw    $0x0001, %cx
        xorb    %dh, %dh
        movb    drive, %dl
        movw    $SECTOR, %bx
        int     $0x13
        jc      failed
        movw    $start, %si             # it is this one, compared up to the texts
        movw    $SECTOR, %di
        movw    $(base - start), %cx
        repe cmpsb
        jne     failed

        movb    $'m', reason
        xorl    %ebx, %ebx
record: movl    $0xe820, %eax
        movl    $SMAP, %edx
        movl    $24, %ecx
        movw    $RECORD, %di
        int     $0x15
        jc      failed
        cmpl    $SMAP, %eax
        jne     failed
        movw    $base, %si
        call    print
        movw    $RECORD + 7, %si
        movw    $8, %cx
        call    print_number
        movw    $length, %si
        call    print
        movw    $RECORD + 15, %si
        movw    $8, %cx
        call    print_number
        movw    $type, %si
        call    print
        movw    $RECORD + 16, %si
        movw    $1, %cx
        call    print_number
        testl   %ebx, %ebx
        jnz     record

        movw    $passed, %si
        call    print
        jmp     off

failed: movw    $failure, %si
        call    print

off:    movw    $end_of_line, %si       # what was printed before has left the UART once this has
        call    print
        movw    $0x2000, %ax            # SLP_EN, SLP_TYP 0: soft off on the i440FX of Bochs and of QEMU
        movw    $0xb004, %dx
        outw    %ax, %dx
        movw    $0x0604, %dx
        outw    %ax, %dx
halt:   cli
        hlt
        jmp     halt

# Prints the zero-terminated text at SI.
print:  lodsb
        testb   %al, %al
        jz      return
        call    print_byte
        jmp     print

# Prints CX bytes from SI downwards as hexadecimal digits.
print_number:
        std
        lodsb
        cld
        pushw   %ax
        shrb    $4, %al
        call    print_digit
        popw    %ax
        call    print_digit
        loop    print_number
return: ret

print_digit:
        andb    $0x0f, %al
        cmpb    $10, %al
        sbbb    $0x69, %al              # '0' to '9' and 'A' to 'F' behind DAS
        das

# Prints AL on COM1.
print_byte:
        pushw   %ax
        movw    $COM1 + 5, %dx
wait:   inb     %dx, %al
        testb   $0x20, %al
        jz      wait
        popw    %ax
        movw    $COM1, %dx
        outb    %al, %dx
        ret

base:   .asciz  "\nxmhf-guest: e820 base=0x"
length: .asciz  " length=0x"
type:   .asciz  " type=0x"
passed: .asciz  "\nxmhf-guest: mbr ok"
failure: .ascii "\nxmhf-guest: mbr failed: "
reason: .asciz  "-"
end_of_line: .asciz "\n                \n"
drive:  .byte   0

        .org    510
        .word   0xaa55
