# A 32-bit Linux program: checks that it runs in a 32-bit code segment, that CPUID, the time-stamp counter,
# the x87 unit and INT 80H work there, and prints one line. Exit status: 0, or the number of the failed check.

        .code32
        .globl  _start
        .text

_start: movl    $1, %ebx
        xorl    %eax, %eax
        .byte   0x40                    # INC EAX here, a prefix without effect in a 64-bit segment
        nop
        cmpl    $1, %eax
        jne     leave

        movl    $2, %ebx
        pushl   %ebx
        xorl    %eax, %eax
        cpuid
        popl    %ebx
        cmpl    $1, %eax                # leaf 1 exists on every CPU with VMX
        jb      leave

        movl    $3, %ebx
        rdtsc
        movl    %eax, %esi
        movl    %edx, %edi
        rdtsc
        subl    %esi, %eax
        sbbl    %edi, %edx
        js      leave                   # time went backwards

        movl    $4, %ebx
        fninit
        pushl   $42
        fildl   (%esp)
        fistpl  (%esp)
        popl    %eax
        cmpl    $42, %eax
        jne     leave

        movl    $4, %eax                # write(1, line, length)
        movl    $1, %ebx
        movl    $line, %ecx
        movl    $line_length, %edx
        int     $0x80
        movl    $5, %ebx
        cmpl    $line_length, %eax
        jne     leave
        xorl    %ebx, %ebx

leave:  movl    $1, %eax                # exit(EBX)
        int     $0x80

        .section .rodata
line:   .ascii  "xmhf-guest: 32-bit program runs\n"
        .set    line_length, . - line

        .section .note.GNU-stack, "", @progbits
