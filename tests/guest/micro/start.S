/* SPDX-License-Identifier: Apache-2.0 */
/* Entry, interrupt entries and the idle loop of the micro guest.
 *
 * There is no IRET in here, because the KVM of our test machines cannot execute a 32-bit one.  It
 * is not needed either: interrupts are open only while the CPU halts in `idle`, so there is never
 * anything to return to, and each entry simply starts over with an empty stack.
 */

	.file	"start.S"		/* not the compiler's temporary name: same output each time */

#define MULTIBOOT_MAGIC	0x1badb002
#define NOTE_PHYS32_ENTRY	18	/* XEN_ELFNOTE_PHYS32_ENTRY */

	.section .headers, "a"
	.balign	4
	.long	MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

	.section .note, "a", @note
	.balign	4
	.long	4, 4, NOTE_PHYS32_ENTRY
	.asciz	"Xen"
	.long	start

	.text
	.globl	start
start:
	cli
	cld
	movl	$stack_top, %esp
	lgdt	gdt_pointer
	ljmp	$0x08, $1f
1:	movl	$0x10, %ecx
	movl	%ecx, %ds
	movl	%ecx, %es
	movl	%ecx, %fs
	movl	%ecx, %gs
	movl	%ecx, %ss
	pushl	%ebx			/* the loader's information, multiboot or PVH */
	call	micro_start
	lidt	idt_pointer
idle:
	sti
	hlt
	jmp	idle

	.globl	timer_entry
timer_entry:
	movl	$stack_top, %esp
	call	micro_timer
	.globl	spurious_entry
spurious_entry:
	movl	$stack_top, %esp
	jmp	idle

	.globl	exception_entries
	.balign	8
exception_entries:
	.set	vector, 0
	.rept	32
	.balign	8
	pushl	$vector
	jmp	exception
	.set	vector, vector + 1
	.endr
exception:
	pushl	%esp
	call	micro_exception

	.globl	halt
halt:
	cli
	hlt
	jmp	halt

	/* Without an IDT the next interrupt is a triple fault. */
	.globl	triple_fault
triple_fault:
	lidt	no_idt_pointer
	jmp	idle

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
idt_pointer:
	.word	48 * 8 - 1
	.long	idt
no_idt_pointer:
	.word	0
	.long	0

	.bss
	.balign	16
	.skip	4096
stack_top:

	.section .note.GNU-stack, "", @progbits
