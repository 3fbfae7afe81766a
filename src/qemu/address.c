/* SPDX-License-Identifier: Apache-2.0 */
#include "qemu/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/error.h"

/* Root ports fill slots 0x10 to 0x1e of pcie.0, eight to a slot; 0x1f is the chipset's. */
#define PORT_SLOT 0x10
#define PORTS_PER_SLOT 8
#define PORTS_MAX ((0x1f - PORT_SLOT) * PORTS_PER_SLOT)
/* On pc slot 0 is the host bridge, 1 the chipset, 2 VGA, 3 the panic device. */
#define SLOT_FIRST 0x4
#define SLOT_LAST 0x1f

struct places {
	enum board board;
	bool used[PORTS_MAX]; /* by number of the port or slot */
	size_t first, end;
};

int address_of(const char *text)
{
	char *end;
	unsigned long slot = strtoul(text, &end, 16), function = 0;

	if (end == text || slot > 0x1f)
		return -1;
	if (*end == '.') {
		const char *rest = end + 1;

		function = strtoul(rest, &end, 16);
		if (end == rest || function > 7)
			return -1;
	}
	return *end ? -1 : (int)(slot * 8 + function);
}

/* Number of the place of a device, -1 when it is none that we give. */
static int place_of(const struct places *places, const struct section *device)
{
	const char *bus = section_get(device, "bus"), *addr = section_get(device, "addr");
	int at = addr ? address_of(addr) : -1, n = -1, length = 0;

	if (!section_is(device, "device") || !bus || at < 0)
		return -1;
	if (places->board == BOARD_PC) {
		n = strcmp(bus, "pci.0") == 0 ? at / 8 : -1;
	} else if (sscanf(bus, "rp%4d%n", &n, &length) != 1 || bus[length] != '\0') {
		n = -1;
	}
	return n >= (int)places->first && n < (int)places->end ? n : -1;
}

static void place(const struct places *places, struct section *device, size_t n)
{
	if (places->board == BOARD_PC) {
		section_set(device, "bus", "pci.0");
		section_setf(device, "addr", "0x%zx", n);
	} else {
		section_setf(device, "bus", "rp%zu", n);
		section_set(device, "addr", "0x0");
	}
}

/* Those who were there before. */
static void keep_places(struct places *places, struct sections *devices,
			const struct sections *last)
{
	for (size_t i = 0; i < devices->count; i++) {
		struct section *device = &devices->items[i];
		const struct section *before = sections_find(last, "device", device->id);
		int n = before ? place_of(places, before) : -1;

		if (section_get(device, "bus") || n < 0 || places->used[n])
			continue;
		places->used[n] = true;
		place(places, device, (size_t)n);
	}
}

static void mark_site(struct places *places, const struct sections *site)
{
	for (size_t i = 0; i < site->count; i++) {
		int n = place_of(places, &site->items[i]);

		if (n >= 0)
			places->used[n] = true;
	}
}

static int place_new(struct places *places, struct sections *devices, struct error *err)
{
	for (size_t i = 0; i < devices->count; i++) {
		struct section *device = &devices->items[i];
		size_t n = places->first;

		if (section_get(device, "bus"))
			continue;
		while (n < places->end && places->used[n])
			n++;
		if (n == places->end)
			return error_refuse(err,
					    "no PCI slot is left for device '%s' (%zu of them are "
					    "there): use machine_type q35, or fewer devices",
					    device->id, places->end - places->first);
		places->used[n] = true;
		place(places, device, n);
	}
	return 0;
}

static size_t count_ports(const struct sections *last)
{
	size_t n = 0;

	while (n < PORTS_MAX) {
		char id[16];

		(void)snprintf(id, sizeof(id), "rp%zu", n);
		if (!sections_find(last, "device", id))
			break;
		n++;
	}
	return n;
}

/* Ports are never taken away: the guest has seen them. */
static void add_ports(const struct places *places, const struct sections *last,
		      struct sections *ports)
{
	size_t used = 0, count = last ? count_ports(last) : 0;

	for (size_t n = 0; n < PORTS_MAX; n++) {
		used += places->used[n];
		if (places->used[n] && n + 1 > count)
			count = n + 1;
	}
	if (count < used + ADDRESS_SPARES)
		count = used + ADDRESS_SPARES;
	for (size_t n = 0; n < count && n < PORTS_MAX; n++) {
		size_t slot = PORT_SLOT + n / PORTS_PER_SLOT, function = n % PORTS_PER_SLOT;
		char id[16];
		struct section *port;

		(void)snprintf(id, sizeof(id), "rp%zu", n);
		port = sections_add(ports, "device", id);
		section_set(port, "driver", "pcie-root-port");
		section_set(port, "bus", "pcie.0");
		section_setf(port, "addr", "0x%zx.0x%zx", slot, function);
		if (function == 0)
			section_set(port, "multifunction", "on");
		section_setf(port, "chassis", "%zu", n + 1);
		section_setf(port, "port", "0x%zx", slot * 8 + function);
	}
}

int address_assign(enum board board, struct sections *devices, const struct sections *last,
		   const struct sections *site, struct sections *ports, struct error *err)
{
	struct places places = {
		.board = board,
		.first = board == BOARD_PC ? SLOT_FIRST : 0,
		.end = board == BOARD_PC ? SLOT_LAST + 1 : PORTS_MAX,
	};
	int r;

	if (last)
		keep_places(&places, devices, last);
	if (site)
		mark_site(&places, site);
	r = place_new(&places, devices, err);
	if (r < 0)
		return r;
	if (board == BOARD_Q35)
		add_ports(&places, last, ports);
	return 0;
}

static bool same_place(const struct section *a, const struct section *b)
{
	const char *bus_a = section_get(a, "bus"), *bus_b = section_get(b, "bus");
	const char *addr_a = section_get(a, "addr"), *addr_b = section_get(b, "addr");

	if (!section_is(a, "device") || !section_is(b, "device") || !bus_a || !bus_b || !addr_a ||
	    !addr_b)
		return false;
	return strcmp(bus_a, bus_b) == 0 && address_of(addr_a) == address_of(addr_b);
}

int address_check(const struct sections *sections, struct error *err)
{
	for (size_t i = 0; i < sections->count; i++) {
		const struct section *a = &sections->items[i];

		for (size_t k = i + 1; k < sections->count; k++) {
			const struct section *b = &sections->items[k];

			if (same_place(a, b))
				return error_refuse(err,
						    "devices '%s' and '%s' both want address %s on "
						    "bus %s: give the one in qemu.cfg.in another",
						    a->id, b->id, section_get(a, "addr"),
						    section_get(a, "bus"));
		}
	}
	return 0;
}
