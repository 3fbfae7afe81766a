/* SPDX-License-Identifier: Apache-2.0 */
/* The network cards of a definition, in its three spellings: our list, fc.qemu's old list of
 * {NETWORK: MAC}, and its `interfaces`.  All become the same list of cards. */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/definition-internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

int definition_read_mac(const struct key_reader *reader, const struct key_place *place,
			json_t *value, void *target, struct error *err)
{
	struct definition_nic *nic = target;
	const char *text = json_string_value(value);
	char mac[sizeof(nic->mac)];

	for (size_t i = 0; i < sizeof(mac); i++)
		mac[i] = text[i] == '-' ? ':' : (char)tolower((unsigned char)text[i]);
	if (strtoul(mac, NULL, 16) & 1)
		return key_wrong(reader, place, err,
				 "%s is a multicast address, no card may have it; write one whose "
				 "first pair is even, as in 52:54:00:1a:2b:3c",
				 mac);
	if (strcmp(mac, "00:00:00:00:00:00") == 0)
		return key_wrong(reader, place, err,
				 "an address of all zeros is none; write one as in "
				 "52:54:00:1a:2b:3c, or leave out mac");
	memcpy(nic->mac, mac, sizeof(mac));
	return 0;
}

/* An address of its own for each card, the same at every start, in QEMU's block of local
 * addresses.  FNV-1a, folded to 24 bits; the NUL keeps ("a", "bc") and ("ab", "c") apart. */
static void make_mac(const char *vm, const char *card, char mac[18])
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	const char *const parts[] = { vm, card };

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		for (const char *c = parts[i];; c++) {
			hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
			if (*c == '\0')
				break;
		}
	hash ^= hash >> 24 ^ hash >> 48;
	(void)snprintf(mac, 18, "52:54:00:%02x:%02x:%02x", (unsigned)(hash >> 16 & 0xff),
		       (unsigned)(hash >> 8 & 0xff), (unsigned)(hash & 0xff));
}

static bool card_exists(const struct definition *definition, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(definition->nics[i].name, name) == 0)
			return true;
	return false;
}

/* "srv", "srv-1", ...: the order in the list decides, so that a card keeps its name while others
 * are added behind it. */
static void name_card(struct definition *definition, size_t index)
{
	struct definition_nic *nic = &definition->nics[index];

	nic->name = nic->network;
	for (unsigned n = 1; card_exists(definition, index, nic->name); n++)
		nic->name = definition_keep(definition, xasprintf("%s-%u", nic->network, n));
}

/* After the keys of one card were read. */
static int check_card(const struct key_reader *reader, const struct key_place *place,
		      const json_t *value, struct definition_nic *nic, struct error *err)
{
	const struct key_place at_bridge = { .up = place, .name = "bridge" };
	const struct key_place at_mode = { .up = place, .name = "mode" };
	bool user;

	nic->mode_given = json_object_get(value, "mode") != NULL;
	if (!nic->network && nic->mode_given && nic->mode == NIC_USER)
		nic->network = "user";
	if (!nic->network)
		return key_wrong(
			reader, place, err,
			"the card has no network; write network: srv, or network: user for "
			"QEMU's own NAT");
	user = strcmp(nic->network, "user") == 0;
	if (user && nic->mode_given && nic->mode == NIC_BRIDGE)
		return key_wrong(
			reader, &at_mode, err,
			"the network 'user' is QEMU's own NAT and has no bridge; write mode: "
			"user, or another network");
	if (user && !nic->mode_given)
		nic->mode = NIC_USER;
	if (nic->bridge && nic->mode != NIC_BRIDGE)
		return key_wrong(
			reader, &at_bridge, err,
			"a card in mode %s has no bridge; leave out bridge, or write mode: "
			"bridge%s",
			nic->mode == NIC_USER ? "user" : "none",
			user ? " and another network" : "");
	return 0;
}

static int add_card(const struct key_reader *reader, const struct key_place *place,
		    struct definition *definition, const struct definition_nic *nic,
		    struct error *err)
{
	if (definition->n_nics == DEFINITION_NICS_MAX)
		return key_wrong(reader, place, err, "there are too many cards; write at most %d",
				 DEFINITION_NICS_MAX);
	for (size_t i = 0; i < definition->n_nics; i++) {
		const struct definition_nic *other = &definition->nics[i];

		/* The same on two networks is right (it is in fc.qemu's own example). */
		if (nic->mac[0] != '\0' && strcmp(nic->mac, other->mac) == 0 &&
		    strcmp(nic->network, other->network) == 0)
			return key_wrong(
				reader, place, err,
				"%s is on network '%s' twice; write another address, or leave "
				"it out",
				nic->mac, nic->network);
	}
	definition->nics[definition->n_nics++] = *nic;
	return 0;
}

/* `{srv: 00-01-02-03-05-06}`: one key that is none of ours. */
static bool is_short_form(json_t *value)
{
	return json_is_object(value) && json_object_size(value) == 1 &&
	       !key_find(definition_nic_keys, json_object_iter_key(json_object_iter(value)));
}

/* Reads the pair as the map that it is short for, at the place where it stands. */
static int read_short_form(const struct key_reader *reader, const struct key_place *place,
			   json_t *value, struct definition_nic *nic, struct error *err)
{
	void *pair = json_object_iter(value);
	const char *network = json_object_iter_key(pair);
	const struct key_place inside = { .up = place, .name = network };
	const json_t *mac = json_object_iter_value(pair);
	struct key mac_key[] = { *key_find(definition_nic_keys, "mac"), { 0 } };
	char quoted[KEY_QUOTE_SIZE];

	if (!json_is_string(mac) && !json_is_null(mac))
		return key_wrong(reader, &inside, err,
				 "%s is no hardware address; write NETWORK: MAC, as in srv: "
				 "52:54:00:1a:2b:3c, or network: %s with more keys",
				 key_quote(mac, quoted), network);
	nic->network = network;
	mac_key[0].name = network;
	mac_key[0].nullable = true;
	return key_read_map(reader, place, mac_key, value, nic, err);
}

/* A network by its key was never checked as a value. */
static int check_network_name(const struct key_reader *reader, const struct key_place *place,
			      const char *network, struct error *err)
{
	json_auto_t *map = json_pack("{s:s}", "network", network);
	const struct key_reader silent = { .document = reader->document };
	struct definition_nic unused = { 0 };
	struct error ignored = { 0 };

	if (map && key_read_map(&silent, place, definition_nic_keys, map, &unused, &ignored) == 0)
		return 0;
	return key_wrong(reader, place, err,
			 "this is no name of a network; write at most 31 letters, digits, '_', '.' "
			 "and '-', as in srv");
}

int definition_read_nics(const struct key_reader *reader, const struct key_place *place,
			 json_t *value, void *target, struct error *err)
{
	struct definition *definition = target;
	json_t *entry;
	size_t i;
	int r;

	json_array_foreach(value, i, entry)
	{
		const struct key_place inside = { .up = place, .index = i };
		struct definition_nic nic = { 0 };

		key_defaults(definition_nic_keys, &nic);
		if (is_short_form(entry))
			r = read_short_form(reader, &inside, entry, &nic, err);
		else
			r = key_read_map(reader, &inside, definition_nic_keys, entry, &nic, err);
		if (r < 0)
			return r;
		if (is_short_form(entry)) {
			const struct key_place at = { .up = &inside, .name = nic.network };

			r = check_network_name(reader, &at, nic.network, err);
			if (r < 0)
				return r;
		}
		r = check_card(reader, &inside, entry, &nic, err);
		if (r < 0)
			return r;
		r = add_card(reader, &inside, definition, &nic, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int definition_read_interfaces(const struct key_reader *reader, const struct key_place *place,
			       json_t *value, void *target, struct error *err)
{
	struct definition *definition = target;
	const char *network;
	json_t *entry;
	int r;

	json_object_foreach(value, network, entry)
	{
		const struct key_place inside = { .up = place, .name = network };
		struct definition_nic nic = { .network = network };

		r = check_network_name(reader, &inside, network, err);
		if (r < 0)
			return r;
		key_defaults(definition_interface_keys, &nic);
		if (!json_is_null(entry)) {
			r = key_read_map(reader, &inside, definition_interface_keys, entry, &nic,
					 err);
			if (r < 0)
				return r;
		}
		r = check_card(reader, &inside, entry, &nic, err);
		if (r < 0)
			return r;
		r = add_card(reader, &inside, definition, &nic, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int definition_finish_nics(const struct key_reader *reader, const struct key_place *parameters,
			   struct definition *definition, struct error *err)
{
	const json_t *tree = json_object_get(definition->tree, "parameters");
	const struct key_place at_interfaces = { .up = parameters, .name = "interfaces" };

	if (json_array_size(json_object_get(tree, "nics")) > 0 &&
	    json_object_size(json_object_get(tree, "interfaces")) > 0)
		return key_wrong(reader, &at_interfaces, err,
				 "both 'nics' and 'interfaces' list cards; keep one of them");
	for (size_t i = 0; i < definition->n_nics; i++) {
		struct definition_nic *nic = &definition->nics[i];

		name_card(definition, i);
		if (nic->mac[0] == '\0')
			make_mac(definition->name, nic->name, nic->mac);
	}
	return 0;
}

struct network {
	int family;
	unsigned char address[16];
	unsigned bits;
};

static int parse_address(const char *text, struct network *ret)
{
	*ret = (struct network){ .family = strchr(text, ':') ? AF_INET6 : AF_INET };
	if (inet_pton(ret->family, text, ret->address) != 1)
		return -EINVAL;
	ret->bits = ret->family == AF_INET ? 32 : 128;
	return 0;
}

static int parse_cidr(const char *text, struct network *ret)
{
	const char *slash = strchr(text, '/');
	char address[INET6_ADDRSTRLEN];
	unsigned bits, most;

	if (!slash || (size_t)(slash - text) >= sizeof(address))
		return -EINVAL;
	memcpy(address, text, (size_t)(slash - text));
	address[slash - text] = '\0';
	if (parse_address(address, ret) < 0)
		return -EINVAL;
	if (strlen(slash + 1) > 3 || slash[1] == '\0' ||
	    slash[1 + strspn(slash + 1, "0123456789")] != '\0')
		return -EINVAL;
	most = ret->bits;
	bits = (unsigned)strtoul(slash + 1, NULL, 10);
	if (bits > most)
		return -EINVAL;
	ret->bits = bits;
	return 0;
}

static bool network_contains(const struct network *network, const struct network *address)
{
	unsigned whole = network->bits / 8, rest = network->bits % 8;

	if (network->family != address->family ||
	    memcmp(network->address, address->address, whole) != 0)
		return false;
	return rest == 0 || (network->address[whole] ^ address->address[whole]) >> (8 - rest) == 0;
}

static int check_address(const struct key_reader *reader, const struct key_place *place,
			 const json_t *value, const char *cidr, const struct network *network,
			 struct error *err)
{
	char quoted[KEY_QUOTE_SIZE];
	struct network address;

	if (!json_is_string(value) || parse_address(json_string_value(value), &address) < 0)
		return key_wrong(reader, place, err,
				 "%s is no address; write one of the network %s",
				 key_quote(value, quoted), cidr);
	if (!network_contains(network, &address))
		return key_wrong(reader, place, err,
				 "%s is not in the network %s; write an address that is",
				 json_string_value(value), cidr);
	return 0;
}

/* Map from CIDR to a list of addresses, or to one. */
static int read_addresses(const struct key_reader *reader, const struct key_place *place,
			  json_t *value, bool lists, struct error *err)
{
	const char *example = lists ? "10.0.0.0/24: [10.0.0.5]" : "10.0.0.0/24: 10.0.0.1";
	char quoted[KEY_QUOTE_SIZE];
	struct network network;
	json_t *entry, *item;
	const char *cidr;
	size_t i;
	int r;

	if (json_is_null(value))
		return 0;
	if (!json_is_object(value))
		return key_wrong(reader, place, err, "%s is not a map; write a map, as in %s",
				 key_quote(value, quoted), example);
	json_object_foreach(value, cidr, entry)
	{
		const struct key_place inside = { .up = place, .name = cidr };

		if (parse_cidr(cidr, &network) < 0)
			return key_wrong(reader, &inside, err,
					 "this is no network; write ADDRESS/BITS, as in %s",
					 example);
		if (!lists) {
			r = check_address(reader, &inside, entry, cidr, &network, err);
			if (r < 0)
				return r;
			continue;
		}
		if (!json_is_array(entry))
			return key_wrong(reader, &inside, err,
					 "%s is not a list; write a list of addresses, as in %s",
					 key_quote(entry, quoted), example);
		json_array_foreach(entry, i, item)
		{
			const struct key_place at = { .up = &inside, .index = i };

			r = check_address(reader, &at, item, cidr, &network, err);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int definition_read_networks(const struct key_reader *reader, const struct key_place *place,
			     json_t *value, void *target, struct error *err)
{
	return read_addresses(reader, place, value, true, err);
}

int definition_read_gateways(const struct key_reader *reader, const struct key_place *place,
			     json_t *value, void *target, struct error *err)
{
	return read_addresses(reader, place, value, false, err);
}
