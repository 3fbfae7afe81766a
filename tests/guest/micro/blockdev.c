/* SPDX-License-Identifier: Apache-2.0 */
/* Registers are reached through the window in PCI configuration space that virtio 1.0 has for
 * firmware: no BAR needs a place then, whatever firmware ran before. */
#include "blockdev.h"

#include <stddef.h>

#include "pci.h"

enum {
	REG_CAPABILITIES = 0x34,
	CAPABILITY_VENDOR = 0x09,
	CAPABILITY_BAR = 4, /* offsets into a capability of virtio */
	CAPABILITY_OFFSET = 8,
	CAPABILITY_LENGTH = 12,
	CAPABILITY_EXTRA = 16, /* the window's data, the multiplier of notifications */

	CAP_COMMON = 1,
	CAP_NOTIFY = 2,
	CAP_DEVICE = 4,
	CAP_WINDOW = 5,
	CAP_TYPES = 6,
	CAPS_NEEDED = 1 << CAP_COMMON | 1 << CAP_NOTIFY | 1 << CAP_DEVICE | 1 << CAP_WINDOW,

	COMMON_FEATURE_SELECT = 8, /* of the driver */
	COMMON_FEATURE = 12,
	COMMON_STATUS = 20,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_AVAIL = 40,
	COMMON_QUEUE_USED = 48,

	STATUS_DRIVER = 1 | 2,
	STATUS_FEATURES_OK = 8,
	STATUS_DRIVER_OK = 4,
	FEATURE_FLUSH = 1 << 9, /* without it each write is followed by a flush */
	FEATURE_VERSION_1 = 1,	/* in the second word */

	QUEUE_SIZE = 4, /* three are used */
	DESC_NEXT = 1,
	DESC_DEVICE_WRITES = 2,
	AVAIL_NO_INTERRUPT = 1,
	REQUEST_OUT = 1,
	SECTORS_PER_BLOCK = BLOCK_SIZE / 512,
	NO_STATUS = 0xff,
};

struct desc {
	uint64_t address;
	uint32_t length;
	uint16_t flags, next;
};

static struct blockdev {
	uint32_t function;
	uint8_t window;
	uint32_t offsets[CAP_TYPES]; /* of each structure, all in one BAR */
	uint32_t notify, notify_each;
	uint16_t begun;

	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} header;
	volatile uint8_t status;
	struct desc desc[QUEUE_SIZE];
	struct {
		uint16_t flags;
		volatile uint16_t index;
		uint16_t ring[QUEUE_SIZE];
	} avail;
	struct {
		uint16_t flags;
		volatile uint16_t index;
		struct {
			uint32_t id, length;
		} ring[QUEUE_SIZE];
	} used __attribute__((aligned(4)));
} dev __attribute__((aligned(16)));

static void aim(uint32_t offset, uint32_t length)
{
	pci_write(dev.function, dev.window + CAPABILITY_OFFSET, offset);
	pci_write(dev.function, dev.window + CAPABILITY_LENGTH, length);
}

static void put(uint32_t offset, uint32_t length, uint32_t value)
{
	aim(offset, length);
	pci_write(dev.function, dev.window + CAPABILITY_EXTRA, value);
}

static uint32_t get(uint32_t offset, uint32_t length)
{
	aim(offset, length);
	return pci_read(dev.function, dev.window + CAPABILITY_EXTRA);
}

static void set(uint32_t field, uint32_t length, uint32_t value)
{
	put(dev.offsets[CAP_COMMON] + field, length, value);
}

static void set_address(uint32_t field, const void *where)
{
	set(field, 4, (uint32_t)(uintptr_t)where);
	set(field + 4, 4, 0);
}

/* False unless it has all structures that are needed. */
static bool find_structures(void)
{
	uint8_t at = pci_read(dev.function, REG_CAPABILITIES) & 0xfc;
	uint32_t found = 0, bar = 0;

	for (; at; at = (pci_read(dev.function, at) >> 8) & 0xfc) {
		uint32_t head = pci_read(dev.function, at), type = head >> 24;

		if ((head & 0xff) != CAPABILITY_VENDOR || type >= CAP_TYPES)
			continue;
		found |= 1u << type;
		if (type == CAP_WINDOW) {
			dev.window = at;
			continue;
		}
		dev.offsets[type] = pci_read(dev.function, at + CAPABILITY_OFFSET);
		if (type == CAP_COMMON)
			bar = pci_read(dev.function, at + CAPABILITY_BAR) & 0xff;
		if (type == CAP_NOTIFY)
			dev.notify_each = pci_read(dev.function, at + CAPABILITY_EXTRA);
	}
	if (dev.window)
		pci_write(dev.function, dev.window + CAPABILITY_BAR, bar);
	return (found & CAPS_NEEDED) == CAPS_NEEDED;
}

static void queue_init(void)
{
	set(COMMON_QUEUE_SELECT, 2, 0);
	set(COMMON_QUEUE_SIZE, 2, QUEUE_SIZE);
	set_address(COMMON_QUEUE_DESC, dev.desc);
	set_address(COMMON_QUEUE_AVAIL, &dev.avail);
	set_address(COMMON_QUEUE_USED, &dev.used);
	dev.notify =
		dev.offsets[CAP_NOTIFY] +
		(get(dev.offsets[CAP_COMMON] + COMMON_QUEUE_NOTIFY, 2) & 0xffff) * dev.notify_each;
	set(COMMON_QUEUE_ENABLE, 2, 1);
}

uint32_t blockdev_init(void)
{
	uint32_t low, high;

	dev.function = pci_open(PCI_ID(0x1af4, 0x1042));
	if (!dev.function)
		dev.function = pci_open(PCI_ID(0x1af4, 0x1001));
	if (!dev.function || !find_structures())
		return 0;
	set(COMMON_STATUS, 1, 0);
	set(COMMON_STATUS, 1, STATUS_DRIVER);
	set(COMMON_FEATURE_SELECT, 4, 0);
	set(COMMON_FEATURE, 4, FEATURE_FLUSH);
	set(COMMON_FEATURE_SELECT, 4, 1);
	set(COMMON_FEATURE, 4, FEATURE_VERSION_1);
	set(COMMON_STATUS, 1, STATUS_DRIVER | STATUS_FEATURES_OK);
	queue_init();
	set(COMMON_STATUS, 1, STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK);
	low = get(dev.offsets[CAP_DEVICE], 4);
	high = get(dev.offsets[CAP_DEVICE] + 4, 4);
	return high ? UINT32_MAX : low / SECTORS_PER_BLOCK;
}

static void describe(unsigned int i, volatile void *where, uint32_t length, uint16_t flags)
{
	dev.desc[i] = (struct desc){
		.address = (uintptr_t)where, .length = length, .flags = flags, .next = i + 1
	};
}

void blockdev_begin(bool write, uint32_t block, void *buffer)
{
	dev.header.type = write ? REQUEST_OUT : 0;
	dev.header.sector = (uint64_t)block * SECTORS_PER_BLOCK;
	dev.status = NO_STATUS;
	describe(0, &dev.header, sizeof(dev.header), DESC_NEXT);
	describe(1, buffer, BLOCK_SIZE, DESC_NEXT | (write ? 0 : DESC_DEVICE_WRITES));
	describe(2, &dev.status, 1, DESC_DEVICE_WRITES);
	dev.avail.flags = AVAIL_NO_INTERRUPT;
	dev.avail.ring[dev.begun % QUEUE_SIZE] = 0;
	__asm__ volatile("" : : : "memory");
	dev.avail.index = ++dev.begun;
	__asm__ volatile("lock; addl $0, (%%esp)" : : : "memory");
	put(dev.notify, 2, 0);
}

enum blockdev_state blockdev_poll(void)
{
	if (dev.used.index != dev.begun)
		return BLOCKDEV_BUSY;
	__asm__ volatile("" : : : "memory");
	if (dev.begun && dev.status) {
		dev.status = 0;
		return BLOCKDEV_FAILED;
	}
	return BLOCKDEV_IDLE;
}
