/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wish.h"

#include <string.h>

enum vm_wish wish_of(const struct wish_input *input)
{
	if (!input->online && !input->source_gone)
		return WISH_OFF;
	if (input->order == ORDER_STOP || input->order == ORDER_KILL)
		return WISH_STOP;
	if (input->mode == NODE_STOPPED)
		return WISH_NODE_STOPPED;
	if (input->order == ORDER_PAUSE)
		return WISH_PAUSE;
	if (input->source_gone || (input->kvm_host_given && !*input->kvm_host))
		return WISH_HANDS_OFF;
	if (input->kvm_host_given && strcmp(input->kvm_host, input->node) != 0)
		return WISH_ELSEWHERE;
	return WISH_RUN;
}

bool wish_is_down(enum vm_wish wish)
{
	return wish == WISH_STOP || wish == WISH_OFF || wish == WISH_NODE_STOPPED;
}
