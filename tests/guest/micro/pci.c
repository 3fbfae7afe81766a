/* SPDX-License-Identifier: Apache-2.0 */
#include "pci.h"

#include <stdbool.h>

#include "port.h"

enum {
	CONFIG_ADDRESS = 0xcf8,
	CONFIG_DATA = 0xcfc,

	REG_ID = 0x00,
	REG_COMMAND = 0x04,
	REG_HEADER = 0x0c,
	REG_BAR0 = 0x10,
	REG_BUSES = 0x18,
	REG_MEMORY_WINDOW = 0x20,
	REG_PREFETCH_WINDOW = 0x24,

	COMMAND_MEMORY_AND_MASTER = 0x06,
	HEADER_MULTIFUNCTION = 1 << 23,
	HEADER_TYPE = 0x7f << 16,
	HEADER_BRIDGE = 0x01 << 16,
	BAR_ADDRESS = ~0xf,
	WINDOW_CLOSED = 0x0000fff0, /* the limit below the base */
};

/* For a BAR and a bridge window of our own: in the PCI hole of q35 and pc, with any RAM size. */
#define OUR_BAR 0xfd000000u
#define OUR_WINDOW 0xfd00fd00u /* 0xfd000000..0xfd0fffff */

struct search {
	uint32_t id;
	bool map;	   /* its BAR 0 */
	uint8_t last_bus;  /* the highest bus number in use */
	uint32_t function; /* the results */
	uint32_t bar;
};

static bool search_bus(struct search *search, uint8_t bus);

uint32_t pci_read(uint32_t function, uint8_t reg)
{
	port_out32(CONFIG_ADDRESS, function | reg);
	return port_in32(CONFIG_DATA);
}

void pci_write(uint32_t function, uint8_t reg, uint32_t value)
{
	port_out32(CONFIG_ADDRESS, function | reg);
	port_out32(CONFIG_DATA, value);
}

/* Writes to the status half are "one clears", so zeros leave it alone. */
static void enable_memory(uint32_t function)
{
	uint32_t command = pci_read(function, REG_COMMAND) & 0xffff;

	pci_write(function, REG_COMMAND, command | COMMAND_MEMORY_AND_MASTER);
}

static void open_bar(struct search *search, uint32_t function)
{
	search->bar = pci_read(function, REG_BAR0) & BAR_ADDRESS;
	if (!search->bar) {
		search->bar = OUR_BAR;
		pci_write(function, REG_BAR0, OUR_BAR);
	}
}

static bool search_behind(struct search *search, uint8_t bus, uint32_t bridge)
{
	uint32_t buses = pci_read(bridge, REG_BUSES);
	uint8_t secondary = buses >> 8, subordinate = buses >> 16;
	bool found;

	if (secondary) {
		if (subordinate > search->last_bus)
			search->last_bus = subordinate;
		found = search_bus(search, secondary);
	} else {
		secondary = ++search->last_bus;
		buses = (buses & 0xff000000) | secondary << 8 | bus;
		pci_write(bridge, REG_BUSES, buses | 0xff << 16);
		found = search_bus(search, secondary);
		pci_write(bridge, REG_BUSES, buses | search->last_bus << 16);
	}
	if (found && search->bar == OUR_BAR) {
		pci_write(bridge, REG_MEMORY_WINDOW, OUR_WINDOW);
		pci_write(bridge, REG_PREFETCH_WINDOW, WINDOW_CLOSED);
	}
	if (found)
		enable_memory(bridge);
	return found;
}

static bool search_bus(struct search *search, uint8_t bus)
{
	for (unsigned int device = 0; device < 32; device++) {
		unsigned int functions = 1;

		for (unsigned int i = 0; i < functions; i++) {
			uint32_t function = PCI_FUNCTION(bus, device, i);
			uint32_t id = pci_read(function, REG_ID);
			uint32_t header;

			if (id == ~0u)
				continue;
			if (id == search->id) {
				search->function = function;
				if (search->map)
					open_bar(search, function);
				enable_memory(function);
				return true;
			}
			header = pci_read(function, REG_HEADER);
			if (header & HEADER_MULTIFUNCTION)
				functions = 8;
			if ((header & HEADER_TYPE) == HEADER_BRIDGE &&
			    search_behind(search, bus, function))
				return true;
		}
	}
	return false;
}

volatile uint8_t *pci_map_bar0(uint32_t id)
{
	struct search search = { .id = id, .map = true };

	if (!search_bus(&search, 0))
		return NULL;
	return (volatile uint8_t *)search.bar;
}

uint32_t pci_open(uint32_t id)
{
	struct search search = { .id = id };

	return search_bus(&search, 0) ? search.function : 0;
}
