/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper/progress.h"

#include "keeper/timeline.h"
#include "util/clock.h"
#include "wire/json.h"

static void take_ram(struct progress *progress, json_t *ram, struct timeline *timeline)
{
	uint64_t bytes = (uint64_t)json_int_or(ram, "transferred", 0);

	if (bytes != progress->bytes)
		progress->bytes_at = clock_now();
	progress->bytes = bytes;
	progress->total = (uint64_t)json_int_or(ram, "total", 0);
	progress->left = (uint64_t)json_int_or(ram, "remaining", 0);
	progress->rounds = (uint64_t)json_int_or(ram, "dirty-sync-count", 0);
	progress->rate = (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 125000);
	timeline_number(timeline, "bytes", progress->bytes);
	timeline_number(timeline, "rounds", progress->rounds);
}

void progress_take_disks(struct progress *progress, uint64_t done, uint64_t total,
			 struct timeline *timeline)
{
	progress->bytes = done;
	progress->total = total;
	progress->left = total > done ? total - done : 0;
	timeline_number(timeline, "disk_bytes", done);
}

void progress_take(struct progress *progress, json_t *info, struct timeline *timeline)
{
	json_t *ram = json_object_get(info, "ram");

	if (ram)
		take_ram(progress, ram, timeline);
	if (json_is_integer(json_object_get(info, "downtime")))
		timeline_number(timeline, "qemu_downtime_ms",
				(uint64_t)json_int_or(info, "downtime", 0));
}

json_t *progress_json(const struct progress *progress)
{
	uint64_t done = progress->total > progress->left ? progress->total - progress->left : 0;

	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)progress->bytes, "total",
			 (json_int_t)progress->total, "percent",
			 (json_int_t)(progress->total ? 100 * done / progress->total : 0), "rounds",
			 (json_int_t)progress->rounds, "rate", (json_int_t)progress->rate);
}
