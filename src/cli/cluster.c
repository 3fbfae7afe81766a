/* SPDX-License-Identifier: Apache-2.0 */
/* drover cluster: nodes become a cluster, and how that stands.  A token is a secret, so it comes by
 * standard input or from a file and is never an argument, which every user of a host can see. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "cli/table.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"
#include "wire/json.h"

#define TOKEN_MAX 1024
#define PATIENCE (60 * USEC_PER_SEC) /* another node is asked */

static int ask(const struct cli *cli, const char *command, json_t *args, json_t **ret_answer,
	       struct error *err)
{
	const struct question question = { .command = command,
					   .args = args,
					   .once = strcmp(command, "cluster-status") != 0,
					   .timeout_usec = PATIENCE };

	return agent_ask(cli, &question, ret_answer, err);
}

static void print_members(const struct cli *cli, const json_t *members)
{
	static const char *const headers[] = { "NODE",	  "ALIVE", "AUTHORITY", "ADDRESS",
					       "VERSION", "SINCE", NULL };
	CLEANUP(table_done) struct table table = { 0 };
	json_t *member;
	size_t i;

	table_init(&table, headers, NULL);
	json_array_foreach(members, i, member)
	{
		table_add(&table, json_string_or(member, "name", NULL));
		table_add(&table, json_bool_or(member, "alive", false) ? "yes" : "no");
		table_add(&table, json_bool_or(member, "authority", false) ? "yes" : "no");
		table_add(&table, json_string_or(member, "address", NULL));
		table_add(&table, json_string_or(member, "version", NULL));
		table_add(&table, json_string_or(member, "since", NULL));
	}
	table_print(&table, cli);
}

static void print_certificate(const json_t *certificate)
{
	CLEANUP_FREE char *line =
		xasprintf("until %s, renewed from %s on", json_string_or(certificate, "until", "?"),
			  json_string_or(certificate, "renewal", "?"));
	const char *trouble = json_string_or(certificate, "trouble", NULL);

	print_field("certificate", line);
	if (trouble)
		print_field("", trouble);
}

/* What is as it was from the beginning is not worth a line's reading. */
static void print_schema(const json_t *schema)
{
	CLEANUP_FREE char *line =
		xasprintf("schema %d, this node knows %d", (int)json_int_or(schema, "version", 0),
			  (int)json_int_or(schema, "newest", 0));

	print_field("records", line);
	if (json_string_or(schema, "trouble", NULL))
		print_field("", json_string_or(schema, "trouble", NULL));
}

static void print_status(const struct cli *cli, const json_t *answer)
{
	const char *cluster = json_string_or(answer, "cluster", NULL);
	const char *not_served = json_string_or(answer, "not_served", NULL);
	const json_t *members = json_object_get(answer, "members");
	CLEANUP_FREE char *store = xasprintf("%s, %s", json_string_or(answer, "store", "-"),
					     json_string_or(answer, "store_state", "-"));
	CLEANUP_FREE char *address =
		xasprintf("%s%s%s", json_string_or(answer, "address", ""), not_served ? ", " : "",
			  not_served ? not_served : "");

	printf("%s\n", json_string_or(answer, "node", "?"));
	print_field("cluster", cluster ? cluster : "none");
	print_field("authority", json_string_or(answer, "authority", NULL));
	print_field("address", address);
	if (json_is_object(json_object_get(answer, "certificate")))
		print_certificate(json_object_get(answer, "certificate"));
	print_field("store", store);
	print_schema(json_object_get(answer, "schema"));
	if (json_array_size(members) == 0)
		return;
	printf("\n");
	print_members(cli, members);
}

/* A request without arguments whose answer is how the cluster stands. */
static int run_plain(struct cli *cli, const char *command, struct error *err)
{
	json_auto_t *answer = NULL;
	int r = ask(cli, command, NULL, &answer, err);

	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else
		print_status(cli, answer);
	return 0;
}

int run_cluster_status(struct cli *cli, struct error *err)
{
	return run_plain(cli, "cluster-status", err);
}

int run_cluster_init(struct cli *cli, struct error *err)
{
	return run_plain(cli, "cluster-init", err);
}

int run_cluster_token(struct cli *cli, struct error *err)
{
	json_auto_t *args = json_build(err, "{s:s?}", "node", cli->args[0]);
	json_auto_t *answer = NULL;
	int r;

	if (!args)
		return -EINVAL;
	r = ask(cli, "cluster-token", args, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json) {
		print_json(answer);
		return 0;
	}
	printf("%s\n", json_string_or(answer, "token", "?"));
	if (isatty(STDOUT_FILENO))
		printf("Good once, until %s; give it to 'drover cluster join' on the new node.\n",
		       json_string_or(answer, "until", "?"));
	return 0;
}

/* One line; what comes behind it is not read. */
static int read_token(const struct cli *cli, char buffer[TOKEN_MAX], struct error *err)
{
	const char *file = cli->args[0];
	CLEANUP_FREE char *text = NULL;
	int r;

	if (file && strcmp(file, "-") != 0) {
		r = file_read(AT_FDCWD, file, TOKEN_MAX - 1, &text, NULL, err);
		if (r < 0)
			return r;
		(void)snprintf(buffer, TOKEN_MAX, "%s", text);
	} else {
		if (isatty(STDIN_FILENO))
			(void)fprintf(stderr, "Token: ");
		if (!fgets(buffer, TOKEN_MAX, stdin))
			buffer[0] = '\0';
	}
	buffer[strcspn(buffer, " \t\r\n")] = '\0';
	if (buffer[0] == '\0')
		return error_bad_data(err, "there is no token in %s",
				      file ? file
					   : "standard "
					     "input");
	return 0;
}

int run_cluster_join(struct cli *cli, struct error *err)
{
	json_auto_t *args = NULL, *answer = NULL;
	char token[TOKEN_MAX];
	int r;

	r = read_token(cli, token, err);
	if (r < 0)
		return r;
	args = json_build(err, "{s:s}", "token", token);
	explicit_bzero(token, sizeof(token));
	if (!args)
		return -EINVAL;
	r = ask(cli, "cluster-join", args, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else
		print_status(cli, answer);
	return 0;
}

int run_cluster_leave(struct cli *cli, struct error *err)
{
	json_auto_t *args = json_pack("{s:s}", "node", cli->args[0] ? cli->args[0] : "");
	json_auto_t *answer = NULL;
	int r;

	if (!cli->args[0])
		(void)json_object_del(args, "node");
	r = ask(cli, "cluster-leave", args, &answer, err);
	if (r < 0)
		return r;
	if (cli->options.json)
		print_json(answer);
	else if (cli->args[0])
		printf("%s is no member any more.\n", json_string_or(answer, "node", "?"));
	else
		printf("%s is no member any more; its agent still uses the store %s: end droverd, "
		       "or "
		       "give it another 'store:'.\n",
		       json_string_or(answer, "node", "?"), json_string_or(answer, "store", "?"));
	return 0;
}
