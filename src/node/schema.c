/* SPDX-License-Identifier: Apache-2.0 */
#include "node/schema.h"

#include "util/error.h"
#include "wire/json.h"

json_t *schema_json(void)
{
	return json_pack("{s:i, s:i}", "v", 1, "version", SCHEMA_VERSION);
}

json_t *schema_range_json(void)
{
	return json_pack("{s:i, s:i}", "min", SCHEMA_VERSION, "max", SCHEMA_VERSION);
}

int64_t schema_loaded(const struct node *node)
{
	return SCHEMA_VERSION;
}

int schema_check(const json_t *value, struct error *err)
{
	int64_t version = 0;
	int r;

	if (!value)
		return 0;
	r = json_need_int(value, "version", &version, err);
	if (r < 0)
		return error_prefix(err, r, "the record '" SCHEMA_KEY "'");
	if (version == SCHEMA_VERSION)
		return 0;
	return error_refuse(err,
			    "the records of this cluster are of schema %lld, and this droverd "
			    "(" DROVER_VERSION ") knows %d: %s",
			    (long long)version, SCHEMA_VERSION,
			    version > SCHEMA_VERSION
				    ? "install the version that the other nodes run"
				    : "it is of no droverd that was released");
}
