/* SPDX-License-Identifier: Apache-2.0 */
/* drover exec: as near to running it here as a guest agent allows.  Bytes in are bytes out, and its
 * exit code is ours; 125 is free for "it did not run", as in env(1) and chroot(1). */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "cli/agent.h"
#include "cli/cli.h"
#include "cli/print.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/mem.h"
#include "wire/base64.h"
#include "wire/json.h"

#define EXIT_NOT_RUN 125
#define INPUT_MAX (1024 * 1024) /* what the guest agent takes */

static int read_input(json_t *args, struct error *err)
{
	CLEANUP(text_done) struct text input = { 0 };
	CLEANUP_FREE char *base64 = NULL;
	char buffer[65536];
	ssize_t length;

	for (;;) {
		length = read(STDIN_FILENO, buffer, sizeof(buffer));
		if (length < 0 && errno == EINTR)
			continue;
		if (length < 0)
			return error_set(err, -errno, "cannot read standard input: %m");
		if (length == 0)
			break;
		text_add(&input, buffer, (size_t)length);
		if (input.length > INPUT_MAX)
			return error_bad_data(err, "--stdin: a guest agent takes %d bytes at most",
					      INPUT_MAX);
	}
	base64 = base64_encode(input.text ? input.text : "", input.length);
	json_set_string(args, "input", base64);
	return 0;
}

static int ask(struct cli *cli, json_t **ret_answer, struct error *err)
{
	struct question question = { .command = "exec", .order = true, .once = true };
	json_auto_t *args = NULL;
	char name[VM_ARGUMENT_SIZE];
	json_t *argv;
	int r;

	r = vm_argument(cli->args[0], name, err);
	if (r < 0)
		return r;
	args = json_build(err, "{s:s, s:[]}", "vm", name, "argv");
	if (!args)
		return -EINVAL;
	argv = json_object_get(args, "argv");
	for (size_t i = 1; i < cli->n_args; i++)
		if (json_array_append_new(argv, json_string(cli->args[i])) < 0)
			return error_bad_data(err,
					      "'%s' is no UTF-8 text, and the guest agent takes "
					      "no other",
					      cli->args[i]);
	if (cli->options.given & OPTION_STDIN) {
		r = read_input(args, err);
		if (r < 0)
			return r;
	}
	if (cli->options.timeout_usec)
		(void)json_object_set_new(
			args, "timeout_ms",
			json_integer((json_int_t)(cli->options.timeout_usec / USEC_PER_MSEC)));
	question.vm = name;
	question.args = args;
	question.timeout_usec = agent_patience(cli);
	return agent_ask(cli, &question, ret_answer, err);
}

static int write_output(const json_t *answer, const char *key, FILE *out, struct error *err)
{
	CLEANUP_FREE unsigned char *bytes = NULL;
	size_t length;
	int r;

	r = base64_decode(json_string_or(answer, key, ""), &bytes, &length, err);
	if (r < 0)
		return r;
	(void)fwrite(bytes, 1, length, out);
	(void)fflush(out);
	return 0;
}

int run_exec(struct cli *cli, struct error *err)
{
	json_auto_t *answer = NULL;
	int64_t code;
	int r;

	r = ask(cli, &answer, err);
	if (r >= 0 && cli->options.json) {
		print_json(answer);
	} else if (r >= 0) {
		r = write_output(answer, "out", stdout, err);
		if (r >= 0)
			r = write_output(answer, "err", stderr, err);
	}
	if (r == -EINTR)
		return error_set(err, r, "no longer waiting; the command may go on in the guest");
	if (r < 0) {
		print_error(err);
		return EXIT_NOT_RUN;
	}
	if (json_bool_or(answer, "out-truncated", false) ||
	    json_bool_or(answer, "err-truncated", false))
		fprintf(stderr, "drover: the guest agent cut the output, it was too long\n");
	code = json_int_or(answer, "signal", 0);
	if (code > 0)
		return (int)((128 + code) & 0xff);
	return (int)(json_int_or(answer, "exitcode", EXIT_NOT_RUN) & 0xff);
}
