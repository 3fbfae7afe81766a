/* SPDX-License-Identifier: Apache-2.0 */
/* The micro guest: a kernel for tests that need a guest which is up in 0.1 s, proves that it keeps
 * running without losing memory, and ends in every way a guest can end.
 *
 *   qemu-system-x86_64 -nodefaults -no-user-config -machine q35,accel=kvm -m 64 -display none \
 *       -bios /usr/share/qemu/qboot.rom -kernel micro.elf -append 'hz=100 ws=16 rate=8' \
 *       -serial stdio
 *
 * It runs on q35 and pc, under KVM and TCG, by qboot or SeaBIOS (under TCG), through its multiboot
 * header or its PVH note.  Everything is done in the timer interrupt; in between the CPU halts.
 *
 * COM1 says `MICRO-UP` first, then one line per tick, all numbers in hexadecimal:
 *
 *   C <seq> <tsc> <bad> <gen>
 *
 * seq counts from 1 and is contiguous unless the reader is so slow that 16 KiB pile up; bad is the
 * number of pages found changed (0, or memory was lost); gen is the number of passes over the
 * working set.  Other lines: `POWER-BUTTON` when it was pressed, `PANIC`, `OFF`, `RESET`, `TRIPLE`
 * just before these, and `E <text>` if something asked for cannot be done.  With a disk set also
 *
 *   DISK <number> <bad>   once, after its blocks were read: the last number that is on the disk
 *   D <number> <bad>      behind each tick from then on: the last number written, and the number of
 *                         blocks that were not as they had been written
 *
 * Words of the command line:
 *
 *   hz=N           lines per second, 1 to 10000; default 100.  What a KVM that emulates guest code
 *                  can do is about 1000 (one exit per byte written), TCG 9000
 *   ws=N           working set in MiB, at most RAM - 3; default 16; 0 for none
 *   rate=N         MiB/s of it to be dirtied, 0 for none; default 8; 800 is possible
 *   disk=N         blocks of 4 KiB, 64 KiB apart, of the first virtio-blk disk to be written and
 *                  checked in turn, one every other interrupt, at most 512; default 0
 *   out=debug      tick lines go to debug port 0x402 (isa-debugcon) instead of COM1; there a reader
 *                  that does not read stops all of QEMU
 *   power=ignore   do not power off when the power button is pressed
 *   off=N          power off after N ticks
 *   panic=N        report a panic through pvpanic-pci, wherever it is plugged, after N ticks; halt
 *   reset=N        reset the machine after N ticks; it boots again and does the same again
 *   triple=N       triple fault after N ticks
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "diskset.h"
#include "pci.h"
#include "port.h"
#include "power.h"
#include "serial.h"
#include "words.h"
#include "workset.h"

enum {
	DEBUG_PORT = 0x402,

	PIC1_COMMAND = 0x20,
	PIC1_DATA = 0x21,
	PIC2_COMMAND = 0xa0,
	PIC2_DATA = 0xa1,

	APIC_SPURIOUS = 0xfee000f0,
	APIC_LINT0 = 0xfee00350,
	APIC_ENABLED = 0x100,
	APIC_EXTINT = 0x700,
	SPURIOUS_VECTOR = 47,

	PIT_CHANNEL0 = 0x40,
	PIT_COMMAND = 0x43,
	PIT_RATE_GENERATOR = 0x34,
	PIT_HZ = 1193182,
	PIT_MIN_HZ = 19, /* its divisor has 16 bits */
	MAX_HZ = 10000,

	PAGES_PER_MIB = 256,
	PVPANIC_PANICKED = 1,

	EXCEPTIONS = 32,
	TIMER_VECTOR = 32,
	VECTORS = 48,
	CODE_SELECTOR = 0x08,
	INTERRUPT_GATE = 0x8e00,

	PVH_MAGIC = 0x336ec578,
	MULTIBOOT_CMDLINE = 16, /* offsets into the loader's information */
	PVH_CMDLINE = 24,
};

/* From start.S.  These are addresses for gates, not functions to be called. */
extern const char timer_entry[], spurious_entry[], exception_entries[];
_Noreturn void halt(void);
_Noreturn void triple_fault(void);

/* Called from start.S. */
void micro_start(uintptr_t info);
void micro_timer(void);
void micro_exception(const uint32_t *frame);

struct gate {
	uint16_t offset_low, selector, flags, offset_high;
};
struct gate idt[VECTORS]; /* start.S loads it */

/* The whole state.  It is static because the stack does not survive an interrupt. */
static struct micro {
	struct serial serial;
	struct power power;
	struct workset set;
	struct diskset disk;
	volatile uint8_t *pvpanic;

	bool out_debug, power_ignore;
	uint32_t hz, timer_hz;		    /* lines and interrupts per second */
	uint32_t rate;			    /* pages per second to be dirtied */
	uint32_t off, panic, reset, triple; /* 0: never */

	uint32_t seq;
	uint32_t hz_credit, rate_credit; /* what is due, in 1/timer_hz */
} micro;

static void say(const char *text)
{
	size_t len = 0;

	while (text[len])
		len++;
	(void)serial_write(&micro.serial, text, len);
	serial_flush(&micro.serial);
}

static char *put_digits(char *at, uint32_t number, unsigned int count)
{
	while (count--)
		*at++ = "0123456789abcdef"[number >> 4 * count & 15];
	return at;
}

/* Without leading zeros: under KVM each byte sent costs an exit, more than all the rest. */
static char *put_hex(char *at, uint64_t number)
{
	uint32_t high = number >> 32, low = number;
	uint32_t first = high ? high : low;

	at = put_digits(at, first, (31 - __builtin_clz(first | 1)) / 4 + 1);
	return high ? put_digits(at, low, 8) : at;
}

static void gates_init(void)
{
	for (unsigned int i = 0; i < VECTORS; i++) {
		uintptr_t entry = (uintptr_t)spurious_entry;

		if (i < EXCEPTIONS)
			entry = (uintptr_t)exception_entries + 8 * i;
		else if (i == TIMER_VECTOR)
			entry = (uintptr_t)timer_entry;
		idt[i] = (struct gate){ .offset_low = entry & 0xffff,
					.selector = CODE_SELECTOR,
					.flags = INTERRUPT_GATE,
					.offset_high = entry >> 16 };
	}
}

/* Only the timer interrupt is open.  It ends by itself ("auto EOI"): one exit less per tick. */
static void pic_init(void)
{
	port_out8(PIC1_COMMAND, 0x11);
	port_out8(PIC1_DATA, TIMER_VECTOR);
	port_out8(PIC1_DATA, 0x04);
	port_out8(PIC1_DATA, 0x03);
	port_out8(PIC2_COMMAND, 0x11);
	port_out8(PIC2_DATA, TIMER_VECTOR + 8);
	port_out8(PIC2_DATA, 0x02);
	port_out8(PIC2_DATA, 0x03);
	port_out8(PIC1_DATA, 0xfe);
	port_out8(PIC2_DATA, 0xff);
}

/* Lets the PIC's interrupts through the local APIC.  SeaBIOS leaves it so, qboot does not. */
static void apic_init(void)
{
	*(volatile uint32_t *)APIC_SPURIOUS = APIC_ENABLED | SPURIOUS_VECTOR;
	*(volatile uint32_t *)APIC_LINT0 = APIC_EXTINT;
}

static void pit_init(uint32_t hz)
{
	uint32_t divisor = PIT_HZ / hz;

	port_out8(PIT_COMMAND, PIT_RATE_GENERATOR);
	port_out8(PIT_CHANNEL0, divisor & 0xff);
	port_out8(PIT_CHANNEL0, divisor >> 8);
}

static void options_read(const char *line)
{
	uint32_t ws = words_number(line, "ws", 16), disk = words_number(line, "disk", 0);

	micro.hz = words_number(line, "hz", 100);
	if (micro.hz < 1)
		micro.hz = 1;
	if (micro.hz > MAX_HZ)
		micro.hz = MAX_HZ;
	micro.timer_hz = micro.hz < PIT_MIN_HZ ? PIT_MIN_HZ : micro.hz;
	micro.rate = words_number(line, "rate", 8) * PAGES_PER_MIB;
	micro.out_debug = words_say(line, "out", "debug");
	micro.power_ignore = words_say(line, "power", "ignore");
	micro.off = words_number(line, "off", 0);
	micro.panic = words_number(line, "panic", 0);
	micro.reset = words_number(line, "reset", 0);
	micro.triple = words_number(line, "triple", 0);

	if (workset_init(&micro.set, ws) < ws)
		say("E working set cut to the size of RAM\n");
	if (disk && !diskset_init(&micro.disk, disk))
		say("E no such disk\n");
	if (micro.panic)
		micro.pvpanic = pci_map_bar0(PCI_ID(0x1b36, 0x0011));
	if (micro.panic && !micro.pvpanic)
		say("E no pvpanic-pci\n");
}

/* The first word of `info` tells the protocol.  Multiboot's magic number in a register does not:
 * qboot sets that for PVH, too. */
void micro_start(uintptr_t info)
{
	bool pvh = *(const uint32_t *)info == PVH_MAGIC;
	uintptr_t field = info + (pvh ? PVH_CMDLINE : MULTIBOOT_CMDLINE);
	const char *line = *(const char *const *)field;

	serial_init(&micro.serial);
	say("MICRO-UP\n");
	power_init(&micro.power);
	options_read(line ? line : "");
	gates_init();
	pic_init();
	apic_init();
	pit_init(micro.timer_hz);
}

static void off(void)
{
	say("OFF\n");
	if (!micro.power.ports)
		say("E no ACPI power management\n");
	power_off(&micro.power);
	halt();
}

static void panic(void)
{
	say("PANIC\n");
	if (micro.pvpanic)
		*micro.pvpanic = PVPANIC_PANICKED;
	halt();
}

static void show(const char *word, const uint64_t *numbers, size_t count, bool debug)
{
	char line[sizeof("DISK\n") + 4 * sizeof(" 0123456789abcdef")];
	char *end = line;

	while (*word)
		*end++ = *word++;
	for (size_t i = 0; i < count; i++) {
		*end++ = ' ';
		end = put_hex(end, numbers[i]);
	}
	*end++ = '\n';
	if (debug)
		port_out_bytes(DEBUG_PORT, line, end - line);
	else
		(void)serial_write(&micro.serial, line, end - line);
}

static void show_disk(const char *word)
{
	show(word, (const uint64_t[]){ micro.disk.number, micro.disk.bad }, 2, false);
}

static void show_tick(void)
{
	show("C",
	     (const uint64_t[]){ micro.seq, __builtin_ia32_rdtsc(), micro.set.bad, micro.set.gen },
	     4, micro.out_debug);
	if (micro.disk.known)
		show_disk("D");
}

static void tick(void)
{
	micro.seq++;
	show_tick();
	serial_flush(&micro.serial);
	if (micro.seq == micro.off)
		off();
	if (micro.seq == micro.panic)
		panic();
	if (micro.seq == micro.reset) {
		say("RESET\n");
		power_reset();
		halt();
	}
	if (micro.seq == micro.triple) {
		say("TRIPLE\n");
		triple_fault();
	}
}

/* `per_second` spread evenly over the interrupts of a second: how much of it is due in this one. */
static uint32_t due(uint32_t *credit, uint32_t per_second)
{
	uint32_t count = 0;

	*credit += per_second;
	if (*credit >= micro.timer_hz) {
		count = *credit / micro.timer_hz;
		*credit %= micro.timer_hz;
	}
	return count;
}

void micro_timer(void)
{
	workset_dirty(&micro.set, due(&micro.rate_credit, micro.rate));
	if (diskset_go_on(&micro.disk))
		show_disk("DISK");
	if (due(&micro.hz_credit, micro.hz))
		tick();
	else
		serial_flush(&micro.serial);
	if (power_button_pressed(&micro.power)) {
		say("POWER-BUTTON\n");
		if (!micro.power_ignore)
			off();
	}
}

/* `frame` starts with the vector, then comes what the CPU has pushed. */
void micro_exception(const uint32_t *frame)
{
	static char text[] = "E exception 00 at 00000000\n";
	const uint32_t with_error_code = 1 << 8 | 0x1f << 10 | 1 << 17;

	put_digits(text + 12, frame[0], 2);
	put_digits(text + 18, frame[1 + (with_error_code >> frame[0] & 1)], 8);
	say(text);
	halt();
}
