/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of a definition: every key that it may have.  docs/DEFINITION.md and
 * docs/definition.schema.json are printed from here. */
#include <stddef.h>

#include "model/cpu-model.h"
#include "model/definition-internal.h"

#define MIB (INT64_C(1) << 20)
#define GIB (INT64_C(1) << 30)
#define TIB (INT64_C(1) << 40)
#define USEC (INT64_C(1000000))

#define AT(member) offsetof(struct definition, member)
#define VOLUME_AT(member) offsetof(struct definition_volume, member)
#define NIC_AT(member) offsetof(struct definition_nic, member)

#define NAME_PATTERN "^[a-z0-9][a-z0-9._-]{0,62}$"
#define HOST_PATTERN "^([a-z0-9][a-z0-9.-]{0,62})?$"
#define NETWORK_PATTERN "^[A-Za-z0-9][A-Za-z0-9_.-]{0,30}$"
#define MAC_PATTERN "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$|^[0-9A-Fa-f]{2}(-[0-9A-Fa-f]{2}){5}$"
#define UUID_PATTERN "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"

static const char *const machines[] = { "virtual", "physical", NULL };
static const char *const accelerators[] = { "auto", "kvm", "tcg", NULL };
static const char *const panic_policies[] = { "report", "restart", "off", NULL };
static const char *const vgas[] = { "std", "none", "virtio", "qxl", "vmware", "cirrus", NULL };
static const char *const leases[] = { "keep", "stop", "pause", NULL };
static const char *const migration_methods[] = { "default", "live", "shutdown", NULL };
static const char *const memory_backends[] = { "shared", "private", NULL };
static const char *const formats[] = { "raw", "qcow2", NULL };
static const char *const caches[] = { "none", "writeback", "directsync", "unsafe", NULL };
static const char *const aios[] = { "threads", "native", "io_uring", NULL };
static const char *const nic_modes[] = { "bridge", "user", "none", NULL };
static const char *const nic_models[] = { "virtio-net-pci", "e1000",   "e1000e",
					  "rtl8139",	    "vmxnet3", NULL };

/* clang-format off */
const struct key definition_volume_keys[] = {
	{ .name = "name", .type = KEY_TEXT, .store = STORE_TEXT, .offset = VOLUME_AT(name),
	  .pattern = "^[a-z0-9][a-z0-9_-]{0,31}$", .example = "root", .absent = "required",
	  .right = "1 to 32 of a-z, 0-9, '_' and '-', beginning with a letter or digit",
	  .meaning = "Name of the volume, unique in this VM." },
	{ .name = "size", .type = KEY_SIZE, .store = STORE_U64, .offset = VOLUME_AT(size),
	  .min = MIB, .max = 64 * TIB, .scale = GIB, .example = "5G",
	  .right = "a size with K, M, G or T, or GiB as a whole number, between 1M and 64T",
	  .absent = "that of `source` or `path`; of `root`: `disk`",
	  .meaning = "Size that the guest sees. A smaller volume grows, a larger one stays." },
	{ .name = "format", .type = KEY_CHOICE, .store = STORE_INDEX, .offset = VOLUME_AT(format),
	  .choices = formats, .absent = "`raw`; with `overlay`: `qcow2`",
	  .meaning = "Format on the host. It is never guessed from the contents." },
	{ .name = "source", .type = KEY_PATH, .store = STORE_TEXT, .offset = VOLUME_AT(source),
	  .example = "/srv/images/debian-12.qcow2",
	  .meaning = "Image that a new volume starts from; later changes of it are not seen." },
	{ .name = "overlay", .type = KEY_BOOL, .store = STORE_BOOL, .offset = VOLUME_AT(overlay),
	  .fallback = "false",
	  .meaning = "Put a qcow2 on top of `source` instead of copying it; `source` must stay." },
	{ .name = "read_only", .type = KEY_BOOL, .store = STORE_BOOL,
	  .offset = VOLUME_AT(read_only), .fallback = "false",
	  .meaning = "The guest may not write." },
	{ .name = "path", .type = KEY_PATH, .store = STORE_TEXT, .offset = VOLUME_AT(path),
	  .example = "/dev/vg0/web01",
	  .meaning = "Use this existing file or block device as it is; Drover neither makes, grows "
		     "nor removes it." },
	{ .name = "cache", .type = KEY_CHOICE, .store = STORE_TEXT, .offset = VOLUME_AT(cache),
	  .choices = caches, .fallback = "none", .meaning = "Host cache, as QEMU calls it." },
	{ .name = "aio", .type = KEY_CHOICE, .store = STORE_TEXT, .offset = VOLUME_AT(aio),
	  .choices = aios, .fallback = "threads",
	  .meaning = "How QEMU waits for the disk; `native` needs `cache` none or directsync." },
	{ 0 },
};

/* Of a nic in the list; an entry of `interfaces` has the same and more. */
#define NIC_COMMON \
	{ .name = "mac", .type = KEY_TEXT, .read = definition_read_mac, .pattern = MAC_PATTERN, \
	  .example = "52:54:00:1a:2b:3c", \
	  .right = "six pairs of hex digits, all joined by ':' or all by '-'", \
	  .absent = "made from the names of VM and nic: 52:54:00:…", \
	  .meaning = "Hardware address, of one card (not a multicast address)." }, \
	{ .name = "bridge", .type = KEY_TEXT, .store = STORE_TEXT, .offset = NIC_AT(bridge), \
	  .pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$", .example = "br0", \
	  .right = "the name of a bridge, at most 15 letters and digits", \
	  .absent = "from `networks` of the node, else `network.bridge_prefix` + network", \
	  .meaning = "Bridge on the host that the card is plugged into." }, \
	{ .name = "mode", .type = KEY_CHOICE, .store = STORE_INDEX, .offset = NIC_AT(mode), \
	  .choices = nic_modes, .absent = "`bridge`; for network `user`: `user`", \
	  .meaning = "Plugged into a bridge, QEMU's own NAT (user), or no cable (none)." }, \
	{ .name = "model", .type = KEY_CHOICE, .store = STORE_TEXT, .offset = NIC_AT(model), \
	  .choices = nic_models, .fallback = "virtio-net-pci", \
	  .meaning = "Card that the guest sees." }

const struct key definition_nic_keys[] = {
	{ .name = "network", .type = KEY_TEXT, .store = STORE_TEXT, .offset = NIC_AT(network),
	  .pattern = NETWORK_PATTERN, .example = "srv",
	  .absent = "`user` with `mode: user`, else required",
	  .right = "the name of a network, at most 31 letters, digits, '_', '.' and '-'",
	  .meaning = "Name of the network. `user` is QEMU's own NAT, which needs nothing "
		     "on the host." },
	NIC_COMMON,
	{ 0 },
};

const struct key definition_interface_keys[] = {
	NIC_COMMON,
	{ .name = "routed", .type = KEY_BOOL, .later = true,
	  .meaning = "The network is routed, not bridged." },
	{ .name = "bridged", .type = KEY_BOOL, .later = true,
	  .meaning = "The network is bridged." },
	{ .name = "networks", .type = KEY_ANY, .nullable = true, .later = true,
	  .read = definition_read_networks, .example = "{10.0.0.0/24: [10.0.0.5]}",
	  .right = "a map from a network to a list of addresses",
	  .meaning = "Addresses of the guest by network in CIDR notation." },
	{ .name = "gateways", .type = KEY_ANY, .nullable = true, .later = true,
	  .read = definition_read_gateways, .example = "{10.0.0.0/24: 10.0.0.1}",
	  .right = "a map from a network to its gateway",
	  .meaning = "Gateway by network in CIDR notation." },
	{ .name = "nics", .type = KEY_ANY, .meaning = "Kept for the guest." },
	{ .name = "policy", .type = KEY_ANY, .meaning = "Kept for the guest." },
	{ 0 },
};

const struct key definition_parameter_keys[] = {
	{ .name = "id", .type = KEY_INTEGER, .store = STORE_I64, .offset = AT(id),
	  .min = 0, .max = 2147483647, .example = "12345",
	  .meaning = "Number of the VM in an inventory." },
	{ .name = "resource_group", .type = KEY_TEXT, .max = 128, .example = "test",
	  .meaning = "Tenant." },
	{ .name = "online", .type = KEY_BOOL, .store = STORE_BOOL, .offset = AT(online),
	  .fallback = "true", .meaning = "Should the VM run at all?" },
	{ .name = "kvm_host", .type = KEY_TEXT, .nullable = true, .store = STORE_TEXT,
	  .offset = AT(kvm_host), .pattern = HOST_PATTERN, .example = "bob",
	  .right = "the name of a node (a-z, 0-9, '.', '-'), or nothing for hands off",
	  .absent = "placement decides",
	  .meaning = "Node that runs the VM. Present and empty: change nothing." },
	{ .name = "machine", .type = KEY_CHOICE, .choices = machines, .absent = "`virtual`",
	  .meaning = "`physical` is refused: inventories hold such machines too." },
	{ .name = "disk", .type = KEY_INTEGER, .unit = "GiB", .min = 1, .max = 65536,
	  .example = "5", .absent = "no disk",
	  .meaning = "Size of the volume `root`, which is made when `volumes` has none "
		     "of that name." },
	{ .name = "memory", .type = KEY_INTEGER, .unit = "MiB", .min = 16, .max = 16777216,
	  .store = STORE_U64, .offset = AT(memory_mib), .fallback = "512", .example = "512",
	  .meaning = "Memory of the guest." },
	{ .name = "memory_max", .type = KEY_INTEGER, .unit = "MiB", .min = 16, .max = 16777216,
	  .store = STORE_U64, .offset = AT(memory_max_mib), .example = "4096", .absent = "`memory`",
	  .meaning = "How far memory may grow while the guest runs." },
	{ .name = "cores", .type = KEY_INTEGER, .min = 1, .max = 255,
	  .store = STORE_UNSIGNED, .offset = AT(cores), .fallback = "1", .example = "2",
	  .meaning = "Number of virtual CPUs." },
	{ .name = "cores_max", .type = KEY_INTEGER, .min = 1, .max = 255,
	  .store = STORE_UNSIGNED, .offset = AT(cores_max), .example = "8", .absent = "`cores`",
	  .meaning = "How far their number may grow while the guest runs." },
	{ .name = "volumes", .type = KEY_LIST, .inner = definition_volume_keys,
	  .read = definition_read_volumes, .example = "[{name: root, size: 5G}]",
	  .meaning = "Disks of the guest, at most 16." },
	{ .name = "nics", .type = KEY_LIST, .inner = definition_nic_keys,
	  .read = definition_read_nics, .example = "[{network: srv}]",
	  .meaning = "Network cards, at most 16; `{NETWORK: MAC}` is short for network and mac." },
	{ .name = "interfaces", .type = KEY_NAMED, .nullable = true,
	  .inner = definition_interface_keys, .read = definition_read_interfaces,
	  .example = "{srv: {mac: 52-54-00-1a-2b-3c}}",
	  .meaning = "Network cards by network; use either this or `nics`." },
	{ .name = "kernel", .type = KEY_PATH, .store = STORE_TEXT, .offset = AT(kernel),
	  .example = "/boot/vmlinuz", .meaning = "Kernel that QEMU loads itself." },
	{ .name = "initrd", .type = KEY_PATH, .store = STORE_TEXT, .offset = AT(initrd),
	  .example = "/boot/initrd.img", .meaning = "Its initial ramdisk." },
	{ .name = "kernel_args", .type = KEY_TEXT, .max = 2047, .store = STORE_TEXT,
	  .offset = AT(kernel_args), .example = "console=ttyS0", .meaning = "Its command line." },
	{ .name = "boot", .type = KEY_TEXT, .max = 32, .store = STORE_TEXT, .offset = AT(boot),
	  .example = "root", .absent = "first volume",
	  .meaning = "Name of the volume that the firmware boots from." },
	{ .name = "firmware", .type = KEY_TEXT, .store = STORE_TEXT, .offset = AT(firmware_path),
	  .pattern = "^bios$|^/", .example = "/usr/share/qemu/qboot.rom", .absent = "`bios`",
	  .read = definition_read_firmware,
	  .right = "bios, or the absolute path of a ROM image",
	  .meaning = "`bios` (SeaBIOS) or a ROM image." },
	{ .name = "machine_type", .type = KEY_TEXT, .max = 64, .store = STORE_TEXT,
	  .offset = AT(machine_type), .pattern = "^(q35|pc)$|^pc-[a-z0-9]+([.-][a-z0-9]+)*$",
	  .example = "pc-q35-7.2", .absent = "`defaults.machine_type` of the node",
	  .right = "q35, pc or a full name",
	  .meaning = "Family (the newest of it is frozen at the first start) or full name." },
	{ .name = "accelerator", .type = KEY_CHOICE, .choices = accelerators, .store = STORE_INDEX,
	  .offset = AT(accelerator), .fallback = "auto",
	  .meaning = "`auto`: KVM where it really works." },
	{ .name = "cpu_model", .type = KEY_TEXT, .max = 512, .store = STORE_TEXT,
	  .offset = AT(cpu_model), .pattern = "^[A-Za-z0-9][A-Za-z0-9_.=+,-]*$",
	  .example = "qemu64", .absent = "`defaults.cpu_model` of the node",
	  .right = "a CPU model of QEMU with its flags, without blanks",
	  .read = cpu_model_check_key,
	  .meaning = "CPU model with flags (`FLAG`, `+FLAG`, `-FLAG`, `FLAG=VALUE`), such as "
		     "`EPYC-v3,ibpb,-svm`." },
	{ .name = "uuid", .type = KEY_TEXT, .pattern = UUID_PATTERN, .read = definition_read_uuid,
	  .example = "b9e0a0f4-5f0d-4d0a-9f3d-0d6f0e6f1c2b", .absent = "made at the first start",
	  .right = "32 hex digits in groups of 8-4-4-4-12",
	  .meaning = "Identity that the guest sees." },
	{ .name = "vga", .type = KEY_CHOICE, .choices = vgas, .store = STORE_TEXT,
	  .offset = AT(vga), .fallback = "std", .meaning = "Graphics card." },
	{ .name = "on_panic", .type = KEY_CHOICE, .choices = panic_policies, .store = STORE_INDEX,
	  .offset = AT(on_panic), .fallback = "report",
	  .meaning = "After a panic of the guest's kernel: keep it for a look, start it "
		     "anew, or end it." },
	{ .name = "graceful_timeout", .type = KEY_DURATION, .store = STORE_U64,
	  .offset = AT(graceful_usec), .min = USEC, .max = 86400 * USEC, .example = "30s",
	  .absent = "`timers.graceful_stop` of the node",
	  .meaning = "How long a guest may take to shut down before it is ended." },
	{ .name = "lease", .type = KEY_CHOICE, .choices = leases, .store = STORE_TEXT,
	  .offset = AT(lease), .absent = "`keep`",
	  .meaning = "What a node that lost the store does with the VM when its lease is over: "
		     "let it run, pause it until the store answers again, or end it." },
	{ .name = "migration_method", .type = KEY_CHOICE, .choices = migration_methods,
	  .store = STORE_INDEX, .offset = AT(migration_method), .fallback = "default",
	  .meaning = "How it gets to another node. `default`: live, and when that cannot be it "
		     "stays and says why. `live`: the same, and a move by shutdown is refused. "
		     "`shutdown`: it is shut down here and started there." },
	{ .name = "migration_max_downtime", .type = KEY_DURATION, .store = STORE_U64,
	  .offset = AT(migration_max_downtime), .min = 1000, .max = 2000 * 1000000LL,
	  .example = "300ms", .absent = "QEMU's own, 300ms",
	  .meaning = "How long the guest may stand still when it is migrated live." },
	{ .name = "migration_bandwidth", .type = KEY_SIZE, .scale = 1, .unit = "bytes a second",
	  .store = STORE_U64, .offset = AT(migration_bandwidth), .min = 1 << 16, .max = TIB,
	  .example = "100M", .right = "bytes a second, between 64K and 1T",
	  .absent = "QEMU's own",
	  .meaning = "How much of the network a live migration may take." },
	{ .name = "migration_postcopy", .type = KEY_BOOL, .store = STORE_BOOL,
	  .offset = AT(migration_postcopy), .fallback = "false",
	  .meaning = "A guest that writes faster than it can be copied goes on at the target when "
		     "the time of its migration is over, before all of its memory is there. If "
		     "either host dies then, its memory is lost. Not with disks that come along." },
	{ .name = "memory_backend", .type = KEY_CHOICE, .choices = memory_backends,
	  .store = STORE_BOOL, .offset = AT(memory_private), .fallback = "shared",
	  .meaning = "`shared` lets QEMU be replaced under the running guest; `private` "
		     "may use huge "
		     "pages where shared memory gets none." },
	{ .name = "environment_class", .type = KEY_TEXT, .max = 64, .example = "NixOS",
	  .read = definition_read_environment_class,
	  .meaning = "`Puppet`: shut down by ctrl-alt-del instead of ACPI." },
	{ .name = "environment_class_type", .type = KEY_TEXT, .max = 64, .later = true,
	  .example = "nixos", .meaning = "`cloudinit`: seed cloud-init data." },
	{ .name = "environment", .type = KEY_TEXT, .max = 128, .later = true,
	  .example = "fc-24.11-production", .meaning = "Name of the base image." },
	{ .name = "rbd_pool", .type = KEY_TEXT, .max = 128, .later = true, .example = "rbd.ssd",
	  .pattern = "^[A-Za-z0-9][A-Za-z0-9._-]*$", .right = "the name of a pool",
	  .meaning = "Ceph pool of all volumes." },
	{ .name = "iops", .type = KEY_INTEGER, .min = 0, .max = 100000000, .later = true,
	  .example = "250", .meaning = "Reads and writes a second, for each disk; 0: no limit." },
	{ .name = "bps", .type = KEY_INTEGER, .unit = "bytes a second", .min = 0, .max = TIB,
	  .later = true, .example = "262144000",
	  .meaning = "Bandwidth of reads and of writes, for each disk; 0: no limit." },
	{ .name = "burst-factor", .type = KEY_INTEGER, .min = 1, .max = 1000, .later = true,
	  .example = "10", .meaning = "How many times `iops` a burst may have." },
	{ .name = "burst", .type = KEY_INTEGER, .unit = "seconds", .min = 0, .max = 86400,
	  .later = true, .example = "60", .meaning = "How long a burst may last." },
	{ .name = "swap_size", .type = KEY_INTEGER, .unit = "bytes", .min = 0, .max = 64 * TIB,
	  .later = true, .example = "1073741824", .meaning = "Computed from `memory` by fc.qemu." },
	{ .name = "tmp_size", .type = KEY_INTEGER, .unit = "bytes", .min = 0, .max = 64 * TIB,
	  .later = true, .example = "5368709120", .meaning = "Computed from `disk` by fc.qemu." },
	{ .name = "ceph_id", .type = KEY_TEXT, .max = 128, .later = true, .example = "admin",
	  .meaning = "Ceph user, set by fc.qemu." },
	{ .name = "binary_generation", .type = KEY_INTEGER, .min = 0, .max = 2147483647,
	  .later = true, .example = "3",
	  .meaning = "Generation of the host's QEMU, set by fc.qemu." },
	{ .name = "name", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "location", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "production", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "servicing", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "timezone", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "profile", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "reverses", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ .name = "service_description", .type = KEY_ANY, .later = true,
	  .meaning = "For the guest." },
	{ .name = "resource_group_parent", .type = KEY_ANY, .later = true,
	  .meaning = "For the guest." },
	{ .name = "directory_password", .type = KEY_ANY, .later = true,
	  .meaning = "For the guest. Never printed." },
	{ .name = "directory_ring", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ 0 },
};

const struct key definition_keys[] = {
	{ .name = "name", .type = KEY_TEXT, .store = STORE_TEXT, .offset = AT(name),
	  .pattern = NAME_PATTERN, .example = "web01", .absent = "required",
	  .right = "1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
	  .meaning = "Name of the VM." },
	{ .name = "parameters", .type = KEY_MAP, .nullable = true,
	  .inner = definition_parameter_keys,
	  .example = "{memory: 512}", .meaning = "Everything else, see below." },
	{ .name = "consul-generation", .type = KEY_INTEGER, .min = 0, .max = INT64_MAX,
	  .example = "42", .meaning = "Kept; Drover counts generations itself." },
	{ .name = "classes", .type = KEY_ANY, .later = true, .meaning = "For the guest." },
	{ 0 },
};
/* clang-format on */
