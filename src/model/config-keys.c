/* SPDX-License-Identifier: Apache-2.0 */
/* The table of the configuration: every key of drover.yaml with its default.
 * docs/CONFIGURATION.md is printed from here. */
#include <stddef.h>

#include "model/config-internal.h"
#include "model/config.h"
#include "model/cpu-model.h"

#define MSEC INT64_C(1000)
#define SEC INT64_C(1000000)
#define DAY (86400 * SEC)
#define MIB (INT64_C(1) << 20)
#define TIB (INT64_C(1) << 40)
#define AT(member) offsetof(struct config, member)

static const char *const accelerators[] = { "auto", "kvm", "tcg", NULL };
static const char *const log_levels[] = { "error", "warning", "info", "debug", NULL };
static const char *const nic_modes[] = { "bridge", "user", "none", NULL };

/* clang-format off */
const struct key config_network_keys[] = {
	{ .name = "bridge", .type = KEY_TEXT, .pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$",
	  .example = "br0", .right = "the name of a bridge, at most 15 letters and digits",
	  .absent = "`network.bridge_prefix` + network",
	  .meaning = "Bridge of this host that the network's cards are plugged into." },
	{ .name = "mode", .type = KEY_CHOICE, .choices = nic_modes, .absent = "`bridge`",
	  .meaning = "Bridge, QEMU's own NAT (user), or no cable (none)." },
	{ 0 },
};

static const struct key qemu_keys[] = {
	{ .name = "binary", .type = KEY_TEXT, .store = STORE_COPY, .offset = AT(qemu_binary),
	  .fallback = "qemu-system-x86_64", .pattern = "^(/.*)?[^/ ]+$",
	  .right = "a program of PATH or an absolute path", .example = "qemu-system-x86_64",
	  .meaning = "QEMU for new guests; looked up in PATH." },
	{ .name = "data_dir", .type = KEY_PATH, .nullable = true, .store = STORE_COPY,
	  .offset = AT(qemu_data), .fallback = "", .example = "/opt/qemu/share/qemu",
	  .meaning = "Where that QEMU finds its firmware (its option -L); empty: its own." },
	{ .name = "probe_rom", .type = KEY_PATH, .store = STORE_COPY, .offset = AT(probe_rom),
	  .absent = "beside the program, else as installed",
	  .example = "/usr/libexec/drover/accel-probe.rom",
	  .meaning = "Guest that tries whether KVM really works." },
	{ .name = "uid_base", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(qemu_uid_base), .min = 1000, .max = 4294000000, .fallback = "1900000000",
	  .example = "1900000000",
	  .meaning = "First of the user ids that QEMUs run under, one for each VM." },
	{ .name = "uid_count", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(qemu_uid_count), .min = 1, .max = 65536, .fallback = "8192",
	  .example = "8192", .meaning = "How many of them." },
	{ 0 },
};

static const struct key defaults_keys[] = {
	{ .name = "accelerator", .type = KEY_CHOICE, .choices = accelerators, .store = STORE_COPY,
	  .offset = AT(accelerator), .fallback = "auto",
	  .meaning = "For definitions that say `auto` or nothing." },
	{ .name = "machine_type", .type = KEY_TEXT, .max = 64, .store = STORE_COPY,
	  .offset = AT(machine_type), .fallback = "q35", .example = "pc-q35-7.2",
	  .pattern = "^(q35|pc)$|^pc-[a-z0-9]+([.-][a-z0-9]+)*$",
	  .right = "q35, pc or a full name",
	  .meaning = "Family or full name of QEMU's machine type." },
	{ .name = "cpu_model", .type = KEY_TEXT, .max = 512, .store = STORE_COPY,
	  .offset = AT(cpu_model), .fallback = "qemu64", .example = "qemu64",
	  .pattern = "^[A-Za-z0-9][A-Za-z0-9_.=+,-]*$",
	  .right = "a CPU model of QEMU with its flags, without blanks",
	  .read = cpu_model_check_key,
	  .meaning = "CPU model." },
	{ 0 },
};

static const struct key memory_keys[] = {
	{ .name = "limit_mib", .type = KEY_INTEGER, .unit = "MiB", .min = 0,
	  .max = INT64_C(1) << 30,
	  .store = STORE_U64, .offset = AT(memory_limit_mib), .fallback = "0", .example = "65536",
	  .meaning = "Memory that VMs of this host may book in all; 0: no limit." },
	{ .name = "overhead_mib", .type = KEY_INTEGER, .unit = "MiB", .min = 0, .max = 65536,
	  .store = STORE_U64, .offset = AT(memory_overhead_mib), .fallback = "512",
	  .example = "512",
	  .meaning = "What one QEMU is expected to need beside its guest's memory." },
	{ 0 },
};

static const struct key cluster_keys[] = {
	{ .name = "address", .type = KEY_TEXT, .nullable = true, .store = STORE_COPY,
	  .offset = AT(cluster_address), .fallback = "", .example = "192.0.2.7",
	  .pattern = "^[0-9]+(\\.[0-9]+){3}$|^[0-9a-fA-F]*:[0-9a-fA-F:.]*$",
	  .right = "an IPv4 or IPv6 address of this host in numbers",
	  .meaning = "Address of this host at which the agents of other nodes reach this one; "
		     "empty: none does." },
	{ .name = "port", .type = KEY_INTEGER, .min = 1, .max = 65535, .store = STORE_UNSIGNED,
	  .offset = AT(cluster_port), .fallback = "8441", .example = "8441",
	  .meaning = "TCP port there; open once this node is in a cluster." },
	{ .name = "certificate_life", .type = KEY_DURATION, .store = STORE_U64,
	  .offset = AT(certificate_life), .min = 10 * SEC, .max = 3650 * DAY, .fallback = "2160h",
	  .example = "2160h",
	  .meaning = "How long the certificates that this node signs are valid; they are renewed "
		     "after two thirds of it." },
	{ 0 },
};

static const struct key consul_keys[] = {
	{ .name = "address", .type = KEY_TEXT, .nullable = true, .store = STORE_COPY,
	  .offset = AT(consul_address), .example = "http://127.0.0.1:8500",
	  .pattern = "^https?://([0-9]+(\\.[0-9]+){3}|\\[[0-9a-fA-F:.]+\\]|localhost):[0-9]{1,5}$",
	  .right = "http or https, an address (no name) and a port", .fallback = "",
	  .meaning = "Agent of Consul whose keys `node/` and `snapshot/` are watched for "
		     "definitions; without it only `drover handle-consul-event` brings some. One or two "
		     "nodes of a cluster are enough: what they take is in the store for all." },
	{ .name = "token_file", .type = KEY_PATH, .nullable = true, .store = STORE_COPY,
	  .offset = AT(consul_token_file), .example = "/etc/drover/consul.token",
	  .fallback = "",
	  .meaning = "File with the ACL token for that, which nobody else may read (0600)." },
	{ .name = "ca_file", .type = KEY_PATH, .nullable = true, .store = STORE_COPY,
	  .offset = AT(consul_ca_file), .example = "/etc/drover/consul-ca.pem",
	  .fallback = "",
	  .meaning = "Certificates that its own is checked with; empty: those of the system." },
	{ .name = "event_threads", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(consul_event_threads), .min = 1, .max = 1000, .fallback = "10",
	  .example = "10", .meaning = "So many events of Consul are at work at the same time." },
	{ .name = "register_services", .type = KEY_BOOL, .store = STORE_BOOL,
	  .offset = AT(consul_register_services), .fallback = "false",
	  .meaning = "Each VM that runs here is a service `qemu-NAME` there, with the name of this "
		     "node as its address; the token may then write the service_prefix \"qemu-\". If "
		     "it may also read nodes, a service stays through a migration until that of "
		     "the other node is there." },
	{ 0 },
};

static const struct key log_keys[] = {
	{ .name = "level", .type = KEY_CHOICE, .choices = log_levels, .store = STORE_COPY,
	  .offset = AT(log_level), .fallback = "info", .meaning = "How much is logged." },
	{ .name = "file", .type = KEY_BOOL, .store = STORE_BOOL, .offset = AT(log_to_file),
	  .fallback = "true",
	  .meaning = "Log to droverd.log and a keeper.log for each VM; false: to the journal." },
	{ .name = "serial_max_bytes", .type = KEY_SIZE, .scale = 1, .min = 64 << 10, .max = TIB,
	  .store = STORE_U64, .offset = AT(serial_log_max), .fallback = "16M", .example = "16MiB",
	  .meaning = "Length at which a serial console's log is rotated; two old ones are kept." },
	{ 0 },
};

static const struct key network_keys[] = {
	{ .name = "bridge_prefix", .type = KEY_TEXT, .store = STORE_COPY,
	  .offset = AT(bridge_prefix), .fallback = "br", .example = "br",
	  .pattern = "^[A-Za-z][A-Za-z0-9_.-]{0,13}$", .right = "at most 14 letters and digits",
	  .meaning = "A network that `networks` does not list is on the bridge PREFIX + NETWORK." },
	{ 0 },
};

static const struct key migration_keys[] = {
	{ .name = "outgoing", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(migration_outgoing), .min = 0, .max = 64, .fallback = "1", .example = "1",
	  .meaning = "How many VMs may leave this node at the same time." },
	{ .name = "incoming", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(migration_incoming), .min = 0, .max = 64, .fallback = "1", .example = "1",
	  .meaning = "How many VMs may come to this node at the same time." },
	{ .name = "port", .type = KEY_INTEGER, .store = STORE_UNSIGNED,
	  .offset = AT(migration_port), .min = 0, .max = 65535, .fallback = "0", .example = "0",
	  .meaning = "First TCP port that a receiver listens on; 0: any that is free." },
	{ .name = "address", .type = KEY_TEXT, .store = STORE_COPY,
	  .offset = AT(migration_address), .example = "192.0.2.7",
	  .pattern = "^[0-9]+(\\.[0-9]+){3}$|^[0-9a-fA-F]*:[0-9a-fA-F:.]*$",
	  .right = "an IPv4 or IPv6 address of this host in numbers",
	  .absent = "`cluster.address`, else 127.0.0.1",
	  .meaning = "Where other nodes reach this one for migrations." },
	{ 0 },
};

static const struct key storage_keys[] = {
	{ .name = "shared", .type = KEY_BOOL, .store = STORE_BOOL, .offset = AT(storage_shared),
	  .fallback = "false",
	  .meaning = "The directory of volumes is on a file system that all nodes share; a VM "
		     "moves without its disks." },
	{ 0 },
};

#define TIMER(member, least, value, words) \
	{ .name = #member, .type = KEY_DURATION, .store = STORE_U64, \
	  .offset = AT(timers.member), .min = (least), .max = 30 * DAY, .fallback = value, \
	  .example = value, .meaning = words }

static const struct key timer_keys[] = {
	TIMER(graceful_stop, MSEC, "60s",
	      "A guest asked to shut down is ended by force after this."),
	TIMER(stop_repeat, MSEC, "10s",
	      "The power button is pressed again after this: a guest that boots does not hear it."),
	TIMER(kill, MSEC, "15s",
	      "A QEMU that is ended gets a third of it each for `quit` and SIGTERM, then SIGKILL."),
	TIMER(qmp, MSEC, "10s", "A monitor that does not answer for this long is mute."),
	TIMER(qmp_ping, MSEC, "5s", "How often a quiet monitor is asked."),
	TIMER(qmp_greeting, MSEC, "10s", "From exec of QEMU to its greeting."),
	TIMER(guest_agent, MSEC, "5s", "One guest agent command, unless it says otherwise."),
	TIMER(probe, MSEC, "2s", "Probe of the accelerator."),
	TIMER(volume, SEC, "1h", "Preparing one volume (copying an image takes time)."),
	TIMER(store_retry, MSEC, "200ms",
	      "An unanswered write to the store is asked again after this."),
	TIMER(backoff_first, MSEC, "1s",
	      "QEMU died or a start failed: first new try after this; then doubled."),
	TIMER(backoff_max, MSEC, "5min", "Longest wait between tries."),
	TIMER(backoff_forget, MSEC, "10min",
	      "After running this long, the next death starts from the first wait."),
	TIMER(session, MSEC, "6s", "Time-out of the node's session with the store."),
	TIMER(lease_stop, MSEC, "500ms",
	      "QEMU has this long to pause when the node's lease is over, or is killed; the lease is "
	      "shorter by it."),
	TIMER(keeper_silent, MSEC, "2s",
	      "A keeper that does not answer for this long is replaced."),
	TIMER(keeper_ping, MSEC, "1s", "How often a keeper is asked."),
	TIMER(cleanup, MSEC, "30s", "What is left of a VM on the host is gone after this."),
	TIMER(command, MSEC, "5min", "A command that waits, without --timeout."),
	TIMER(settle_files, 0, "100ms",
	      "Quiet time after a change in etc/drover/vms before it is read."),
	TIMER(migration_offer, MSEC, "60s", "A receiver that nobody sends to is given up."),
	TIMER(migration_stall, MSEC, "10s",
	      "A migration in which no byte arrives for this long is cancelled."),
	TIMER(migration_switch, MSEC, "1s",
	      "Before the switch both sides get an answer from the store within this, else it is "
	      "cancelled."),
	TIMER(migration_take_back, MSEC, "500ms",
	      "A source that said `stopped` and hears nothing for this long takes the VM back."),
	TIMER(migration_keep, MSEC, "60s",
	      "A source keeps its stopped copy this long when the target took it and says no more."),
	TIMER(migration_deadline, MSEC, "1h",
	      "A migration that has not ended by then is cancelled."),
	TIMER(migration_stopped_repeat, MSEC, "50ms", "How often `stopped` is said again."),
	{ 0 },
};

const struct key config_keys[] = {
	{ .name = "node", .type = KEY_TEXT, .store = STORE_COPY, .offset = AT(node),
	  .pattern = "^[a-z0-9][a-z0-9.-]{0,62}$", .example = "alpha",
	  .right = "1 to 63 of a-z, 0-9, '.' and '-', beginning with a letter or digit",
	  .absent = "the host name up to its first dot", .meaning = "Name of this node." },
	{ .name = "store", .type = KEY_TEXT, .store = STORE_COPY, .offset = AT(store),
	  .pattern = "^[a-z]+:.+$", .example = "local:/var/lib/drover/store.db",
	  .right = "SCHEME:ADDRESS", .absent = "`local:LIB/store.db`",
	  .meaning = "Where the cluster keeps its records: `local:FILE`, which agents of one "
		     "machine may share, `zookeeper:ADDRESS:PORT,ADDRESS:PORT/PATH?tick=MS` with "
		     "the servers' tickTime (2000 if not said), or "
		     "`consul:http://ADDRESS:PORT,ADDRESS:PORT/PREFIX?token-file=FILE` (https too, "
		     "then with `ca-file=FILE` if need be) with a token that may write the keys "
		     "below PREFIX and the node and sessions of \"drover-store\"; names of "
		     "servers are not looked up." },
	{ .name = "host_dir", .type = KEY_PATH, .store = STORE_COPY, .offset = AT(host_dir),
	  .fallback = "/run/drover-host", .example = "/run/drover-host",
	  .meaning = "What all agents of one machine share (memory bookings, user ids), "
		     "whatever their root." },
	{ .name = "qemu", .type = KEY_MAP, .inner = qemu_keys,
	  .meaning = "Where QEMU is and who it runs as." },
	{ .name = "defaults", .type = KEY_MAP, .inner = defaults_keys,
	  .meaning = "For definitions that do not say." },
	{ .name = "memory", .type = KEY_MAP, .inner = memory_keys, .meaning = "Admission of VMs." },
	{ .name = "cluster", .type = KEY_MAP, .inner = cluster_keys,
	  .meaning = "How the nodes of a cluster reach each other." },
	{ .name = "consul", .type = KEY_MAP, .inner = consul_keys,
	  .meaning = "Definitions that are published in Consul." },
	{ .name = "log", .type = KEY_MAP, .inner = log_keys, .meaning = "Logs." },
	{ .name = "migration", .type = KEY_MAP, .inner = migration_keys,
	  .meaning = "Live migration." },
	{ .name = "storage", .type = KEY_MAP, .inner = storage_keys, .meaning = "Volumes." },
	{ .name = "network", .type = KEY_MAP, .inner = network_keys,
	  .meaning = "Networks in general." },
	{ .name = "networks", .type = KEY_NAMED, .nullable = true, .inner = config_network_keys,
	  .example = "{srv: {bridge: br0}}", .read = config_read_networks,
	  .meaning = "What a network of a definition is on this host." },
	{ .name = "timers", .type = KEY_MAP, .inner = timer_keys, .meaning = "Every timer." },
	{ 0 },
};
/* clang-format on */
