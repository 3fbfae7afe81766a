/* SPDX-License-Identifier: Apache-2.0 */
/* drover: the command line.  A thin client of the agent's control.sock: it reads what the user
 * wrote, asks one question, prints the answer and exits with a code that scripts can rely on. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/print.h"
#include "util/error.h"

/* Whoever started us with a closed descriptor must not find our socket under its number. */
static void open_standard_descriptors(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
			(void)open("/dev/null", O_RDWR);
}

static void look_at_terminal(struct cli *cli)
{
	const char *no_color = getenv("NO_COLOR");
	const char *term = getenv("TERM");
	struct winsize size;

	if (!isatty(STDOUT_FILENO))
		return;
	cli->width = 80;
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		cli->width = size.ws_col;
	cli->color = !(cli->options.given & OPTION_NO_COLOR) && (!no_color || !*no_color) &&
		     (!term || strcmp(term, "dumb") != 0);
}

static int run(struct cli *cli, int argc, char **argv, struct error *err)
{
	int r;

	r = options_parse(cli, argc, argv, err);
	if (r < 0)
		return r;
	if (cli->options.given & OPTION_VERSION) {
		printf("drover %s\n", DROVER_VERSION);
		return EXIT_SUCCESS;
	}
	if (!cli->command && !(cli->options.given & OPTION_HELP)) {
		help_print(stderr);
		return error_exit_code(ERROR_USAGE);
	}
	if (cli->options.given & OPTION_HELP) {
		if (cli->command)
			help_print_command(cli->command, stdout);
		else
			help_print(stdout);
		return EXIT_SUCCESS;
	}
	look_at_terminal(cli);
	r = paths_init(cli->options.root, &cli->paths, err);
	if (r < 0)
		return r;
	return cli->command->run(cli, err);
}

/* A reader that has gone away (`drover ls | head -1`) has what it wanted; a full disk has not. */
static int flush_output(int code)
{
	struct pollfd output = { .fd = STDOUT_FILENO };

	if (fflush(stdout) == 0 && !ferror(stdout))
		return code;
	/* Not by errno: the write that failed may be long ago. */
	if (poll(&output, 1, 0) == 1 && (output.revents & POLLERR))
		return code;
	fprintf(stderr, "drover: cannot write the output: %s\n", strerror(errno));
	return code == 0 ? error_exit_code(ERROR_FAILED) : code;
}

int main(int argc, char **argv)
{
	struct error err = { 0 };
	struct cli cli = { 0 };
	int code;

	open_standard_descriptors();
	(void)signal(SIGPIPE, SIG_IGN);
	code = run(&cli, argc, argv, &err);
	if (code < 0) {
		(void)fflush(stdout);
		print_error(&err);
		code = code == -EINTR ? EXIT_INTERRUPTED : error_exit_code(err.class);
	}
	paths_done(&cli.paths);
	free(cli.words);
	return flush_output(code);
}
