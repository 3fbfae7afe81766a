/* SPDX-License-Identifier: Apache-2.0 */
#include "power.h"

#include <stddef.h>

#include "pci.h"
#include "port.h"

enum {
	PM1_STATUS = 0,
	PM1_ENABLE = 2,
	PM1_CONTROL = 4,
	POWER_BUTTON = 1 << 8, /* the same bit in PM1_STATUS and PM1_ENABLE */
	/* SLP_EN with SLP_TYP 0: the value of S5 in QEMU's \_S5 package, for ICH9 and PIIX4. */
	SLEEP_S5 = 1 << 13,

	/* Where SeaBIOS and qboot put it, too. */
	DEFAULT_PORTS = 0x600,
	PORTS_IO = 1, /* the lowest bit of a base register for I/O ports */

	RESET_CONTROL = 0xcf9,
	RESET_HARD = 0x02,
	RESET_NOW = 0x04,
	KEYBOARD_COMMAND = 0x64,
	KEYBOARD_RESET = 0xfe,
};

static const struct chipset {
	uint32_t id;
	uint32_t function;
	uint8_t base_reg;
	uint16_t base_mask;
	uint8_t enable_reg;
	uint8_t enable;
} chipsets[] = {
	{ PCI_ID(0x8086, 0x2918), PCI_FUNCTION(0, 0x1f, 0), 0x40, 0xff80, 0x44, 0x80 }, /* ICH9 */
	{ PCI_ID(0x8086, 0x7113), PCI_FUNCTION(0, 0x01, 3), 0x40, 0xffc0, 0x80, 0x01 }, /* PIIX4 */
};

static uint16_t chipset_ports(const struct chipset *chipset)
{
	uint16_t ports = pci_read(chipset->function, chipset->base_reg) & chipset->base_mask;
	uint32_t enable = pci_read(chipset->function, chipset->enable_reg);

	if (!ports) {
		ports = DEFAULT_PORTS;
		pci_write(chipset->function, chipset->base_reg, DEFAULT_PORTS | PORTS_IO);
	}
	if (!(enable & chipset->enable))
		pci_write(chipset->function, chipset->enable_reg, enable | chipset->enable);
	return ports;
}

void power_init(struct power *power)
{
	power->ports = 0;
	for (size_t i = 0; i < sizeof(chipsets) / sizeof(chipsets[0]); i++) {
		if (pci_read(chipsets[i].function, 0) == chipsets[i].id)
			power->ports = chipset_ports(&chipsets[i]);
	}
	if (!power->ports)
		return;
	port_out16(power->ports + PM1_STATUS, POWER_BUTTON);
	/* QEMU forgets a press unless it is enabled.  The interrupt it raises then stays masked in
	 * the PIC: we poll. */
	port_out16(power->ports + PM1_ENABLE, POWER_BUTTON);
}

bool power_button_pressed(const struct power *power)
{
	if (!power->ports || !(port_in16(power->ports + PM1_STATUS) & POWER_BUTTON))
		return false;
	port_out16(power->ports + PM1_STATUS, POWER_BUTTON);
	return true;
}

void power_off(const struct power *power)
{
	if (power->ports)
		port_out16(power->ports + PM1_CONTROL, SLEEP_S5);
}

void power_reset(void)
{
	port_out8(RESET_CONTROL, RESET_HARD);
	port_out8(RESET_CONTROL, RESET_HARD | RESET_NOW);
	port_out8(KEYBOARD_COMMAND, KEYBOARD_RESET); /* for machines without 0xcf9 */
}
