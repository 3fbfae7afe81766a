/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration space, and just enough set-up to reach one device: qboot leaves buses behind
 * bridges and root ports unnumbered and all BARs empty. */
#pragma once

#include <stdint.h>

/* A function as the configuration address port wants it. */
#define PCI_FUNCTION(bus, device, function)                                                        \
	(0x80000000u | (uint32_t)(bus) << 16 | (uint32_t)(device) << 11 | (uint32_t)(function) << 8)

/* Vendor in the low, device in the high half, as register 0 has them. */
#define PCI_ID(vendor, device) ((uint32_t)(device) << 16 | (vendor))

uint32_t pci_read(uint32_t function, uint8_t reg);
void pci_write(uint32_t function, uint8_t reg, uint32_t value);

/* Looks for a device on all buses, also behind bridges, and makes its memory BAR 0 accessible with
 * all bridges above it.  What firmware has set up stays as it is.  NULL if there is none. */
volatile uint8_t *pci_map_bar0(uint32_t id);

/* Looks for a device likewise and lets it use memory, but gives its BARs no place: what it has in
 * configuration space is enough for some.  Returns its function, 0 if there is none. */
uint32_t pci_open(uint32_t id);
