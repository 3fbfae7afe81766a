/* SPDX-License-Identifier: Apache-2.0 */
/* rtnetlink by hand: one request, one answer, in the kernel's own words when it refuses. */
#include "net/rtnl.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define ANSWER_SIZE (32u * 1024) /* a link with all its statistics is about 2 KiB */

static void socket_closep(struct mnl_socket **socket)
{
	if (*socket)
		(void)mnl_socket_close(*socket);
}

static int rtnl_open(struct mnl_socket **ret_socket, struct error *err)
{
	/* The kernel answers before send() returns; this is for a kernel that does not. */
	static const struct timeval patience = { .tv_sec = 5 };
	CLEANUP(socket_closep) struct mnl_socket *nl = NULL;
	int on = 1;

	nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (!nl || mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0)
		return error_set(err, -errno, "cannot talk to the kernel's network: %m");
	(void)mnl_socket_setsockopt(nl, NETLINK_EXT_ACK, &on, sizeof(on));
	(void)setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVTIMEO, &patience,
			 sizeof(patience));
	*ret_socket = TAKE_PTR(nl);
	return 0;
}

static struct nlmsghdr *request_begin(char *buffer, uint16_t type, uint16_t flags, unsigned index,
				      struct ifinfomsg **ret_link)
{
	struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
	struct ifinfomsg *link;

	request->nlmsg_type = type;
	request->nlmsg_flags = NLM_F_REQUEST | flags;
	request->nlmsg_seq = (uint32_t)time(NULL);
	link = mnl_nlmsg_put_extra_header(request, sizeof(*link));
	link->ifi_family = AF_UNSPEC;
	link->ifi_index = (int)index;
	if (ret_link)
		*ret_link = link;
	return request;
}

/* The kernel's sentence about its refusal, when it has one (NETLINK_EXT_ACK). */
static int refusal_text(const struct nlattr *attribute, void *ctx)
{
	const char **ret_text = ctx;

	if (mnl_attr_get_type(attribute) == NLMSGERR_ATTR_MSG &&
	    mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) >= 0)
		*ret_text = mnl_attr_get_str(attribute);
	return MNL_CB_OK;
}

/* 0 is the acknowledgement. */
static int answer_code(const struct nlmsghdr *answer, const char *what, struct error *err)
{
	const struct nlmsgerr *refusal = mnl_nlmsg_get_payload(answer);
	const char *text = NULL;
	size_t skip = sizeof(*refusal);

	if (mnl_nlmsg_get_payload_len(answer) < sizeof(*refusal))
		return error_set(err, -EBADMSG, "%s: the kernel's answer was cut", what);
	if (refusal->error == 0)
		return 0;
	if (answer->nlmsg_flags & NLM_F_ACK_TLVS) {
		if (!(answer->nlmsg_flags & NLM_F_CAPPED))
			skip += refusal->msg.nlmsg_len - sizeof(refusal->msg);
		(void)mnl_attr_parse(answer, (unsigned)skip, refusal_text, &text);
	}
	return error_set(err, refusal->error, "%s: %m%s%s", what, text ? ": " : "",
			 text ? text : "");
}

/* Sends and waits for the answer, which is left in `answer`: 0 acknowledged, 1 a message. */
static int rtnl_ask(struct nlmsghdr *request, char *answer, const char *what, struct error *err)
{
	CLEANUP(socket_closep) struct mnl_socket *nl = NULL;
	int r;

	r = rtnl_open(&nl, err);
	if (r < 0)
		return r;
	if (mnl_socket_sendto(nl, request, request->nlmsg_len) < 0)
		return error_set(err, -errno, "%s: %m", what);
	for (;;) {
		const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)answer;
		ssize_t n = mnl_socket_recvfrom(nl, answer, ANSWER_SIZE);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_set(err, -errno, "%s: no answer from the kernel: %m", what);
		if (!mnl_nlmsg_ok(header, (int)n) || header->nlmsg_seq != request->nlmsg_seq)
			continue;
		if (header->nlmsg_type != NLMSG_ERROR)
			return 1;
		return answer_code(header, what, err);
	}
}

static int kind_read(const struct nlattr *attribute, void *ctx)
{
	struct rtnl_link *link = ctx;

	if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND)
		(void)strncpy(link->kind, mnl_attr_get_str(attribute), sizeof(link->kind) - 1);
	return MNL_CB_OK;
}

static int link_read(const struct nlattr *attribute, void *ctx)
{
	struct rtnl_link *link = ctx;

	switch (mnl_attr_get_type(attribute)) {
	case IFLA_MTU:
		link->mtu = mnl_attr_get_u32(attribute);
		break;
	case IFLA_IFALIAS:
		(void)strncpy(link->alias, mnl_attr_get_str(attribute), sizeof(link->alias) - 1);
		break;
	case IFLA_LINKINFO:
		(void)mnl_attr_parse_nested(attribute, kind_read, link);
		break;
	default:
		break;
	}
	return MNL_CB_OK;
}

int rtnl_get(const char *name, struct rtnl_link *ret_link, struct error *err)
{
	char request_buffer[256] = { 0 };
	CLEANUP_FREE char *answer = xcalloc(1, ANSWER_SIZE);
	struct nlmsghdr *request = request_begin(request_buffer, RTM_GETLINK, 0, 0, NULL);
	struct rtnl_link link = { 0 };
	const struct nlmsghdr *header;
	int r;

	if (strlen(name) >= IFNAMSIZ)
		return 0;
	mnl_attr_put_strz(request, IFLA_IFNAME, name);
	mnl_attr_put_u32(request, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	r = rtnl_ask(request, answer, "cannot look at a network device", err);
	if (r == -ENODEV)
		return 0;
	if (r <= 0)
		return r < 0 ? error_prefix(err, r, "'%s'", name) : 0;
	header = (const struct nlmsghdr *)(const void *)answer;
	link.index = (unsigned)((const struct ifinfomsg *)mnl_nlmsg_get_payload(header))->ifi_index;
	(void)mnl_attr_parse(header, sizeof(struct ifinfomsg), link_read, &link);
	*ret_link = link;
	return 1;
}

static int rtnl_tell(struct nlmsghdr *request, const char *what, struct error *err)
{
	CLEANUP_FREE char *answer = xcalloc(1, ANSWER_SIZE);
	int r;

	r = rtnl_ask(request, answer, what, err);
	return r < 0 ? r : 0;
}

/* A kernel without IPv6 has nothing to switch off. */
static int ipv6_silence(unsigned index, struct error *err)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *request = request_begin(buffer, RTM_NEWLINK, NLM_F_ACK, index, NULL);
	struct nlattr *families = mnl_attr_nest_start(request, IFLA_AF_SPEC);
	struct nlattr *ipv6 = mnl_attr_nest_start(request, AF_INET6);
	int r;

	mnl_attr_put_u8(request, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
	mnl_attr_nest_end(request, ipv6);
	mnl_attr_nest_end(request, families);
	r = rtnl_tell(request, "cannot switch IPv6 addresses off", err);
	return r == -EAFNOSUPPORT || r == -EOPNOTSUPP ? 0 : r;
}

int rtnl_adopt(unsigned index, const char *alias, const uint8_t mac[6], struct error *err)
{
	char buffer[1024] = { 0 };
	struct nlmsghdr *request = request_begin(buffer, RTM_NEWLINK, NLM_F_ACK, index, NULL);
	int r;

	mnl_attr_put(request, IFLA_ADDRESS, 6, mac);
	mnl_attr_put_strz(request, IFLA_IFALIAS, alias);
	r = rtnl_tell(request, "cannot mark a network device as ours", err);
	return r < 0 ? r : ipv6_silence(index, err);
}

int rtnl_attach(unsigned index, unsigned bridge, uint32_t mtu, struct error *err)
{
	char buffer[256] = { 0 };
	struct ifinfomsg *link;
	struct nlmsghdr *request = request_begin(buffer, RTM_NEWLINK, NLM_F_ACK, index, &link);

	link->ifi_flags = IFF_UP;
	link->ifi_change = IFF_UP;
	/* The kernel takes the MTU before the master, so the bridge never follows a smaller one. */
	mnl_attr_put_u32(request, IFLA_MTU, mtu);
	mnl_attr_put_u32(request, IFLA_MASTER, bridge);
	return rtnl_tell(request, "cannot put a network device on its bridge", err);
}

int rtnl_delete(unsigned index, struct error *err)
{
	char buffer[256] = { 0 };
	struct nlmsghdr *request = request_begin(buffer, RTM_DELLINK, NLM_F_ACK, index, NULL);
	int r;

	r = rtnl_tell(request, "cannot remove a network device", err);
	return r == -ENODEV ? 0 : r;
}
