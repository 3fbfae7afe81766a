/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration of a node: etc/drover/drover.yaml over one documented set of defaults (the table in
 * config.c, from which docs/CONFIGURATION.md is made).  A missing file is fine.  `drover config`
 * prints each effective value with its source. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "model/definition.h"

struct error;
struct text;

/* Directories.  Without a root: /etc/drover /run/drover /var/lib/drover /var/log/drover; with one:
 * ROOT/etc/drover ROOT/run/drover ROOT/lib/drover ROOT/log/drover. */
struct paths {
	char *root; /* "" without one; absolute */
	char *etc, *run, *lib, *log;
};
int paths_init(const char *root, struct paths *ret, struct error *err); /* NULL: $DROVER_ROOT, "" */
void paths_done(struct paths *paths);

struct config {
	struct paths paths;
	char *node;	   /* node: short host name */
	char *store;	   /* store: "local:LIB/store.db" */
	char *qemu_binary; /* qemu.binary: qemu-system-x86_64 (looked up in PATH) */
	char *qemu_data;   /* qemu.data_dir: "" (QEMU's own; else -L) */
	char *probe_rom;   /* qemu.probe_rom: found beside the programs, else LIBEXEC path */
	unsigned qemu_uid_base, qemu_uid_count; /* qemu.uid_base, qemu.uid_count */
	char *accelerator;			/* defaults.accelerator: auto */
	char *machine_type;			/* defaults.machine_type: q35 */
	char *cpu_model;			/* defaults.cpu_model: qemu64 */
	uint64_t memory_limit_mib;    /* memory.limit_mib: 0 = no limit (fc: vm-max-total-memory) */
	uint64_t memory_overhead_mib; /* memory.overhead_mib: 512 (fc: vm-expected-overhead) */
	char *host_dir;		      /* host_dir: /run/drover-host: what all agents of one
				       * machine share (bookings, uids) */
	char *cluster_address;	      /* cluster.address: "" = no other node reaches this one */
	unsigned cluster_port;	      /* cluster.port: 8441 */
	uint64_t certificate_life;    /* cluster.certificate_life: 90 days, microseconds */
	char *consul_address;	      /* consul.address: "" = the feed of Consul is not watched */
	char *consul_token_file, *consul_ca_file; /* consul.token_file, .ca_file: "" = none */
	bool consul_register_services;		  /* consul.register_services: false */
	unsigned consul_event_threads;		  /* consul.event_threads: 10 */
	char *log_level;			  /* log.level: info */
	bool log_to_file;	 /* log.file: true = LOG/droverd.log and per-VM keeper.log */
	uint64_t serial_log_max; /* log.serial_max_bytes: 16 MiB, then rotated, 2 kept */
	char *bridge_prefix;	 /* network.bridge_prefix: "br" */
	unsigned migration_outgoing, migration_incoming; /* migration.outgoing, .incoming: 1 */
	unsigned migration_port;			 /* migration.port: 0 = any */
	char *migration_address; /* migration.address: cluster.address, else 127.0.0.1 */
	bool storage_shared;	 /* storage.shared: other nodes see the same volumes */
	json_t *networks;	 /* networks: {NAME: {bridge: ..., mode: bridge|user|none}} */

	/* Every timer of the house, microseconds; in the file timers.NAME as "30s", "500ms" */
	struct timers {
		uint64_t graceful_stop;	   /* 60s: guest asked to shut down -> ended by force */
		uint64_t stop_repeat;	   /* 10s: the power button is pressed again */
		uint64_t kill;		   /* 15s: quit -> TERM -> SIGKILL, a third each */
		uint64_t qmp;		   /* 10s: no answer from the monitor for this long: mute */
		uint64_t qmp_ping;	   /* 5s: how often a quiet monitor is asked */
		uint64_t qmp_greeting;	   /* 10s: exec -> greeting */
		uint64_t guest_agent;	   /* 5s: default for one guest agent command */
		uint64_t probe;		   /* 2s: accelerator probe */
		uint64_t volume;	   /* 1h: preparing one volume */
		uint64_t store_retry;	   /* 200ms: unanswered write is asked again */
		uint64_t backoff_first;	   /* 1s: QEMU died or a start failed -> first new try */
		uint64_t backoff_max;	   /* 5min */
		uint64_t backoff_forget;   /* 10min of running: a death starts from the first */
		uint64_t session;	   /* 6s: store session time-out (protocol 7.1) */
		uint64_t lease_stop;	   /* 500ms: end of the lease -> QEMU has paused, or dies */
		uint64_t keeper_silent;	   /* 2s: agent kills a keeper that does not answer pings */
		uint64_t keeper_ping;	   /* 1s */
		uint64_t cleanup;	   /* 30s: remains on the host -> gone */
		uint64_t command;	   /* 5min: a waiting command without --timeout */
		uint64_t settle_files;	   /* 100ms: quiet time after a change of vms/ */
		uint64_t migration_offer;  /* 60s: a receiver that nobody sends to goes */
		uint64_t migration_stall;  /* 10s: no byte for this long: cancelled */
		uint64_t migration_switch; /* 1s: the store answers both sides before a switch */
		uint64_t migration_take_back;	   /* 500ms: "stopped" was said, nobody took */
		uint64_t migration_keep;	   /* 60s: stopped copy is kept after the take */
		uint64_t migration_deadline;	   /* 1h: then it is cancelled */
		uint64_t migration_stopped_repeat; /* 50ms: "stopped" is said again */
	} timers;
	/* {"timers.qmp": "/etc/drover/drover.yaml:12", "node": "host name"}; absent: default */
	json_t *sources;
};

int config_load(const char *root, struct config **ret_config, struct error *err);
struct config *config_free(struct config *config);
/* 0: a node may be called so. */
int config_check_node(const char *name);
/* {"KEY": {"value": ..., "source": "default" | "host name" | "FILE:LINE"}, ...} in the table's
 * order. */
json_t *config_json(const struct config *config);

/* How a card is plugged in on this host: what the definition says, else `networks`, else the bridge
 * prefix + network.  `bridge` (IFNAMSIZ) is "" unless the mode is NIC_BRIDGE. */
int config_nic(const struct config *config, const struct definition_nic *nic,
	       enum nic_mode *ret_mode, char bridge[16], struct error *err);

/* docs/CONFIGURATION.md. */
void config_reference(struct text *ret);
