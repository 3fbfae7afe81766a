/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping the vcpus of a copy by order, and letting them run again.  Failures are told, and tried
 * again after a while. */
#pragma once

struct keeper;

void pause_begin(struct keeper *keeper);
void resume_begin(struct keeper *keeper);
