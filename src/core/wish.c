/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wish.h"

#include <stdio.h>

enum vm_wish wish_of(const struct wish_input *input)
{
	if (!input->online && !input->source_gone)
		return WISH_OFF;
	if (input->order == ORDER_STOP || input->order == ORDER_KILL)
		return WISH_STOP;
	if (input->mode == NODE_STOPPED)
		return WISH_NODE_STOPPED;
	if (input->order == ORDER_PAUSE)
		return input->bystander ? WISH_ELSEWHERE : WISH_PAUSE;
	if (input->source_gone || input->hands_off)
		return WISH_HANDS_OFF;
	return input->here ? WISH_RUN : WISH_ELSEWHERE;
}

bool wish_is_down(enum vm_wish wish)
{
	return wish == WISH_STOP || wish == WISH_OFF || wish == WISH_NODE_STOPPED;
}

bool wish_explain_off(enum vm_wish wish, const char *vm, const char *node, char *buffer,
		      size_t size)
{
	switch (wish) {
	case WISH_STOP:
		(void)snprintf(buffer, size,
			       "stopped by an administrator; 'drover start %s' runs it again", vm);
		return true;
	case WISH_OFF:
		(void)snprintf(buffer, size, "the definition says 'online: false'");
		return true;
	case WISH_NODE_STOPPED:
		(void)snprintf(buffer, size, "the node is stopped; 'drover node ready' ends that");
		return true;
	case WISH_HANDS_OFF:
		(void)snprintf(buffer, size,
			       "hands off: 'kvm_host' is empty, or the definition's file is gone");
		return true;
	case WISH_ELSEWHERE:
		(void)snprintf(buffer, size, "it belongs on node '%s'", node ? node : "?");
		return true;
	case WISH_PAUSE:
		(void)snprintf(buffer, size,
			       "it ended while it was paused; 'drover start %s' runs it again", vm);
		return true;
	default:
		buffer[0] = '\0';
		return false;
	}
}
