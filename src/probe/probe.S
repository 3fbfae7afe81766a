/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The accelerator probe guest: can this KVM really run what a stock Linux kernel is made of?
 *
 * /dev/kvm may open, report every capability and still not execute a kernel (a KVM that emulates
 * guest kernel code is one such).  So Drover starts this program, which is its own firmware: it
 * takes the CPU from reset to 64-bit mode and tries one thing after another.  result.h says how it
 * reports and how to read the end of QEMU.
 *
 *   qemu-system-x86_64 -nodefaults -no-user-config -machine q35,accel=kvm -cpu max -m 16 \
 *       -display none -no-reboot -bios accel-probe.rom \
 *       -device isa-debug-exit,iobase=0xf4,iosize=4 \
 *       -chardev file,id=probe,path=OUT -device isa-debugcon,iobase=0x402,chardev=probe
 *
 * The same with accel=tcg and with -machine pc; `-chardev stdio,id=probe` shows it to a human.
 * Allow 2 s; TCG needs 0.03 to 0.1 s.
 *
 * After a KVM internal error QEMU stays, with the guest stopped, and no option of it (-action,
 * -no-shutdown, -no-reboot) changes that.  Who does not want to sit out the deadline can watch
 * stderr for "KVM internal error", or QMP for STOP, after which query-status says "internal-error".
 *
 * All of this is one section at 0xffff0000..0xffffffff, so `label - rom` is a constant for the
 * assembler: that is what the 16-bit code and the halves of the descriptors are made of.  The
 * descriptor tables stay in ROM, hence the accessed bits are set beforehand.
 */
#include "result.h"

/* RAM.  One page each for the tables, one for data; the stack grows down to the data page. */
#define PML4		0x1000
#define PDPT		0x2000
#define PD_LOW		0x3000		/* 0..1 GiB: the RAM used here */
#define PD_ROM		0x4000		/* 3..4 GiB: the ROM */
#define DATA		0x5000
#define STACK		0x7000

/* In the data page, all zero at first. */
#define PAIR		(DATA + 0x10)
#define XSAVE_IN	(DATA + 0x400)
#define XSAVE_OUT	(DATA + 0x800)

#define CODE32		0x08
#define DATA32		0x10
#define CODE64		0x18

#define CR0_PE		(1 << 0)
#define CR0_MP		(1 << 1)
#define CR0_EM		(1 << 2)
#define CR0_TS		(1 << 3)
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define CR4_OSFXSR	(1 << 9)
#define CR4_OSXSAVE	(1 << 18)
#define MSR_EFER	0xc0000080
#define EFER_SCE	(1 << 0)
#define EFER_LME	(1 << 8)
#define EFER_LMA	(1 << 10)
#define PTE_TABLE	0x03		/* present, writable */
#define PTE_2MIB	0x83
#define FCW_DEFAULT	0x37f
#define MXCSR_DEFAULT	0x1f80
#define XSAVE_MXCSR	24		/* offsets in the XSAVE area */
#define XSAVE_XMM0	160
#define XSAVE_PRESENT	512
#define CPUID_1_ECX_CX16	(1 << 13)
#define CPUID_1_ECX_XSAVE	(1 << 26)
#define CPUID_EXT_EDX_LM	(1 << 29)

#define AS_SYMBOL(name, code, word) .set PROBE_##name, code ;
#define AS_WORD(name, code, word) word_##name: .asciz word ;
PROBE_TESTS(AS_SYMBOL)

/* Announces a test.  %ebp holds its code throughout, in every mode, for failed(). */
.macro begin name
	movl	$PROBE_\name, %ebp
	movl	$word_\name, %esi
	call	print
.endm

.macro passed
	movl	$text_ok, %esi
	call	print
.endm

	.text
rom:

/* ---- 16-bit: where the CPU starts, with CS at the ROM although the offset is small ---- */
	.code16
real_mode:
	cli
	cld
	xorl	%eax, %eax
	movw	%ax, %ss
	movw	$STACK, %sp
	movl	$PROBE_REAL_MODE, %ebp
	movw	$(word_REAL_MODE - rom), %si
	call	print16
	movw	$(text_ok - rom), %si
	call	print16

	/* An exception before the IDT is loaded leads astray; the deadline ends that. */
	movw	$(word_PROTECTED_MODE - rom), %si
	call	print16
	lgdtl	%cs:(gdt_pointer - rom)
	movl	%cr0, %eax
	orl	$CR0_PE, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $protected_mode

print16:
	movw	$PROBE_DEBUG_PORT, %dx
1:	lodsb	%cs:(%si), %al
	testb	%al, %al
	jz	2f
	outb	%al, %dx
	jmp	1b
2:	ret

/* ---- 32-bit, no paging ---- */
	.code32
protected_mode:
	movl	$DATA32, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$STACK, %esp
	lidt	idt32_pointer
	movl	$PROBE_PROTECTED_MODE, %ebp
	passed

	begin	IRET32
	movl	%esp, %ebx
	pushfl
	pushl	$CODE32
	pushl	$1f
	iretl
	jmp	wrong
1:	cmpl	%esp, %ebx
	jne	wrong
	passed

	begin	CPUID
	xorl	%eax, %eax
	cpuid
	testl	%eax, %eax
	jz	wrong
	movl	$0x80000000, %eax
	cpuid
	cmpl	$0x80000001, %eax
	jb	no_long_mode
	movl	$0x80000001, %eax
	cpuid
	testl	$CPUID_EXT_EDX_LM, %edx
	jz	no_long_mode
	passed

	begin	EFER
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$(EFER_LME | EFER_SCE), %eax
	movl	%eax, %ebx
	wrmsr
	xorl	%eax, %eax
	rdmsr
	cmpl	%eax, %ebx
	jne	wrong
	passed

	begin	LONG_MODE
	movl	$PML4, %edi
	movl	$((DATA + 0x1000 - PML4) / 4), %ecx
	xorl	%eax, %eax
	rep stosl
	movl	$(PDPT + PTE_TABLE), PML4
	movl	$(PD_LOW + PTE_TABLE), PDPT
	movl	$(PD_ROM + PTE_TABLE), PDPT + 3 * 8
	movl	$PTE_2MIB, PD_LOW
	movl	$(0xffe00000 + PTE_2MIB), PD_ROM + 511 * 8
	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$PML4, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$CR0_PG, %eax
	movl	%eax, %cr0
	ljmpl	$CODE64, $long_mode

/* A 32-bit CPU model: its guests need nothing of what would follow. */
no_long_mode:
	passed
	begin	LONG_MODE
	movl	$text_absent, %esi
	call	print
	movl	$PROBE_PASSED_CODE, %ebp
	movl	$text_passed, %esi
	jmp	failed

/* Prints the string at %esi.  Up to the end of this part the instructions are chosen to have the
 * same encoding and effect in 32-bit and in 64-bit mode, so both use it. */
print:
	movl	$PROBE_DEBUG_PORT, %edx
1:	lodsb
	testb	%al, %al
	jz	2f
	outb	%al, %dx
	jmp	1b
2:	ret

/* One entry per CPU exception; an error code below the vector does not matter, nobody returns. */
	.balign	8
exceptions:
	.set	vector, 0
	.rept	32
	.balign	8
	push	$vector
	jmp	exception
	.set	vector, vector + 1
	.endr

exception:
	movl	$text_exception, %esi
	call	print
	pop	%eax
	movl	%eax, %ebx
	shrl	$4, %eax
	addb	$'0', %al
	outb	%al, %dx
	movl	%ebx, %eax
	andb	$15, %al
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	1f
	addb	$('a' - '9' - 1), %al
1:	outb	%al, %dx
	movl	$text_newline, %esi
	jmp	failed

wrong:
	movl	$text_wrong, %esi
failed:
	call	print
finish:
	movl	%ebp, %eax
	outb	%al, $PROBE_EXIT_PORT
1:	hlt				/* only without isa-debug-exit */
	jmp	1b

/* ---- 64-bit ---- */
	.code64
long_mode:
	movl	$DATA32, %eax
	movl	%eax, %ss
	movl	$STACK, %esp
	lidt	idt64_pointer(%rip)
	movl	$MSR_EFER, %ecx
	rdmsr
	testl	$EFER_LMA, %eax
	jz	wrong
	movabsq	$0x0123456789abcdef, %r8
	movq	%r8, DATA
	bswapq	%r8
	movl	$0xefcdab89, %eax
	cmpl	%eax, %r8d		/* false unless the upper half was there to be swapped */
	je	wrong
	bswapq	%r8
	cmpq	%r8, DATA
	jne	wrong
	passed

	begin	IRETQ
	movq	%rsp, %rbx
	movl	$DATA32, %eax
	pushq	%rax
	pushq	%rbx
	pushfq
	pushq	$CODE64
	leaq	1f(%rip), %rax
	pushq	%rax
	iretq
	jmp	wrong
1:	cmpq	%rsp, %rbx
	jne	wrong
	passed

	begin	INT3
	movq	%rsp, %rbx
	xorl	%r15d, %r15d
	int3
after_int3:
	cmpl	$1, %r15d
	jne	wrong
	cmpq	%rsp, %rbx
	jne	wrong
	passed

	begin	CMPXCHG16B
	movl	$1, %eax
	cpuid
	movl	%ecx, %r14d		/* kept for the next test; print leaves it alone */
	testl	$CPUID_1_ECX_CX16, %r14d
	jz	1f
	/* Memory is 0:0 here, so 2:1 must go in, and then, with 0:0 expected again, come out. */
	movl	$PAIR, %edi
	xorl	%eax, %eax
	xorl	%edx, %edx
	movl	$1, %ebx
	movl	$2, %ecx
	lock cmpxchg16b (%rdi)
	jne	wrong
	xorl	%ebx, %ebx
	lock cmpxchg16b (%rdi)
	je	wrong
	cmpq	$1, %rax
	jne	wrong
	cmpq	$2, %rdx
	jne	wrong
	cmpq	$1, (%rdi)
	jne	wrong
	passed
	jmp	2f
1:	movl	$text_absent, %esi
	call	print
2:

	begin	XSAVE
	testl	$CPUID_1_ECX_XSAVE, %r14d
	jz	1f
	movq	%cr0, %rax
	andl	$~(CR0_EM | CR0_TS), %eax
	orl	$CR0_MP, %eax
	movq	%rax, %cr0
	movq	%cr4, %rax
	orl	$(CR4_OSFXSR | CR4_OSXSAVE), %eax
	movq	%rax, %cr4
	movl	$0xd, %eax
	xorl	%ecx, %ecx
	cpuid
	andl	$7, %eax		/* x87, SSE, AVX: the area is then below 1 KiB */
	xorl	%ecx, %ecx
	xorl	%edx, %edx
	xsetbv
	/* A made-up state goes in and must come out elsewhere.  As in a kernel no SSE instruction is
	 * used, so that only these two are judged. */
	movl	$XSAVE_IN, %edi
	movabsq	$0xfedcba9876543210, %r8
	movw	$FCW_DEFAULT, (%rdi)
	movl	$MXCSR_DEFAULT, XSAVE_MXCSR(%rdi)
	movq	%r8, XSAVE_XMM0(%rdi)
	movl	$3, XSAVE_PRESENT(%rdi)
	xrstor64 (%rdi)			/* %edx:%eax is still XCR0 */
	movl	$XSAVE_OUT, %edi
	xsave64	(%rdi)
	cmpq	%r8, XSAVE_XMM0(%rdi)
	jne	wrong
	passed
	jmp	2f
1:	movl	$text_absent, %esi
	call	print
2:

	movl	$PROBE_PASSED_CODE, %ebp
	movl	$text_passed, %esi
	call	print
	jmp	finish

breakpoint:
	leaq	after_int3(%rip), %rax
	cmpq	%rax, (%rsp)
	jne	wrong
	incl	%r15d
	iretq

/* ---- data ---- */
PROBE_TESTS(AS_WORD)
text_ok:	.asciz	" ok\n"
text_absent:	.asciz	" absent\n"
text_wrong:	.asciz	" wrong\n"
text_exception:	.asciz	" exception "
text_newline:	.asciz	"\n"
text_passed:	.ascii	PROBE_PASSED_WORD
		.asciz	"\n"

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	/* CODE32 */
	.quad	0x00cf93000000ffff	/* DATA32 */
	.quad	0x00af9b000000ffff	/* CODE64 */
gdt_end:

	/* Interrupt gates.  The upper half of every address in this ROM is 0xffff. */
	.balign	16
idt32:	.set	vector, 0
	.rept	32
	.word	exceptions - rom + 8 * vector, CODE32, 0x8e00, 0xffff
	.set	vector, vector + 1
	.endr
idt32_end:

idt64:	.set	vector, 0
	.rept	32
	.if	vector == 3
	.word	breakpoint - rom, CODE64, 0x8e00, 0xffff
	.else
	.word	exceptions - rom + 8 * vector, CODE64, 0x8e00, 0xffff
	.endif
	.long	0, 0
	.set	vector, vector + 1
	.endr
idt64_end:

gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
idt32_pointer:
	.word	idt32_end - idt32 - 1
	.long	idt32
idt64_pointer:
	.word	idt64_end - idt64 - 1
	.quad	idt64

/* ---- the reset vector ---- */
	.org	0xfff0
	.code16
	jmp	real_mode
	.org	0x10000
	.section .note.GNU-stack, "", @progbits
