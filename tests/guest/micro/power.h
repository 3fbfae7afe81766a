/* SPDX-License-Identifier: Apache-2.0 */
/* The power button and the ways to end or restart the machine, on q35 (ICH9) and pc (PIIX4). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct power {
	uint16_t ports; /* the ACPI PM1 registers; 0 if this machine has none that we know */
};

/* Finds the power management block, gives it ports if firmware did not, enables the button. */
void power_init(struct power *power);

/* Whether the button was pressed since the last call. */
bool power_button_pressed(const struct power *power);

/* ACPI state S5.  QEMU may let the guest run on for a moment, so this returns. */
void power_off(const struct power *power);

void power_reset(void);
