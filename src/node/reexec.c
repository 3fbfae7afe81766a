/* SPDX-License-Identifier: Apache-2.0 */
#include "node/reexec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "model/config.h"
#include "node/control.h"
#include "node/events.h"
#include "node/keeper.h"
#include "node/node.h"
#include "node/schema.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/log.h"
#include "util/mem.h"
#include "util/spawn.h"
#include "wire/json.h"
#include "wire/peer.h"

/* "PID LOCK LISTENER": descriptors for the process of that number, which stays the same. */
#define INHERITED "DROVER_INHERITED"
#define CHECK_TIMEOUT (30 * USEC_PER_SEC)
#define CHILDREN_MAX (1024u * 1024)
#define DRAIN (5 * USEC_PER_SEC) /* for what cannot be asked again, as a command in a guest */

struct reexec {
	struct node *node;
	char *program;
	struct tool *check;
	struct request *request;
	bool going; /* it can; waiting for what is open */
	bool due;
	int lock, listener;
	sd_event_source *drain;
};

/* As it was called, so that a link to the newest one is followed again; what PATH found, and what
 * is called relative to a directory, by the name that the kernel has for it. */
static char *program_of(char **argv)
{
	CLEANUP_FREE char *own = xcalloc(1, 4096);

	if (argv[0][0] == '/' || readlink("/proc/self/exe", own, 4095) <= 0)
		return xstrdup(argv[0]);
	return TAKE_PTR(own);
}

static bool is_listener(int fd)
{
	int listens = 0;
	socklen_t size = sizeof(listens);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens;
}

static void take_inherited(struct reexec *reexec)
{
	const char *text = getenv(INHERITED);
	int pid = 0, lock = -1, listener = -1;

	if (text && sscanf(text, "%d %d %d", &pid, &lock, &listener) == 3 && pid == (int)getpid() &&
	    fcntl(lock, F_SETFD, FD_CLOEXEC) == 0 && fcntl(listener, F_SETFD, FD_CLOEXEC) == 0 &&
	    is_listener(listener)) {
		reexec->lock = lock;
		reexec->listener = listener;
	}
	(void)unsetenv(INHERITED);
}

void reexec_open(struct node *node, char **argv)
{
	struct reexec *reexec = xcalloc(1, sizeof(*reexec));

	*reexec = (struct reexec){
		.node = node, .program = program_of(argv), .lock = -1, .listener = -1
	};
	take_inherited(reexec);
	node->reexec = reexec;
}

struct reexec *reexec_close(struct reexec *reexec)
{
	if (!reexec)
		return NULL;
	reexec->check = tool_cancel(reexec->check);
	sd_event_source_disable_unref(reexec->drain);
	cleanup_closep(&reexec->lock);
	cleanup_closep(&reexec->listener);
	free(reexec->program);
	free(reexec);
	return NULL;
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	(void)sd_event_source_set_floating(source, false); /* the last reference */
	return 0;
}

void reexec_adopt_children(struct node *node)
{
	CLEANUP_FREE char *path = xasprintf("/proc/self/task/%d/children", (int)getpid());
	CLEANUP_FREE char *text = NULL;
	sd_event_source *source;
	char *rest, *word;

	if (!node->reexec || node->reexec->lock < 0 ||
	    file_read(AT_FDCWD, path, CHILDREN_MAX, &text, NULL, NULL) < 0)
		return;
	for (word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		if (sd_event_add_child(node->loop, &source, (pid_t)atoi(word), WEXITED, on_child,
				       NULL) < 0)
			continue;
		(void)sd_event_source_set_floating(source, true);
		(void)sd_event_source_unref(source);
	}
}

int reexec_lock(struct node *node)
{
	return node->reexec ? TAKE_FD(node->reexec->lock) : -1;
}

int reexec_listener(struct node *node)
{
	return node->reexec ? TAKE_FD(node->reexec->listener) : -1;
}

/* ---- the change ---- */

static void go(struct reexec *reexec)
{
	struct node *node = reexec->node;
	CLEANUP_FREE char *text = NULL;

	/* Copies: the node closes its own when it goes. */
	int lock = fcntl(node->lock_fd, F_DUPFD, 3);
	int listener = control_handover(node);

	text = xasprintf("%d %d %d", (int)getpid(), lock, listener);
	if (lock >= 0 && listener >= 0 && setenv(INHERITED, text, 1) < 0)
		log_warning("the next program has to bind its socket anew");
	(void)sd_notify(0, "RELOADING=1");
	reexec->due = true;
	reexec->going = false;
	(void)sd_event_exit(node->loop, 0);
}

static int on_drained(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct reexec *reexec = userdata;

	if (reexec->node->jobs)
		log_warning("not waiting any longer for what clients have asked");
	go(reexec);
	return 0;
}

void reexec_look(struct node *node)
{
	if (node->reexec && node->reexec->going && !node->jobs)
		node_timer(node, &node->reexec->drain, 0, on_drained, node->reexec);
}

/* Under way, and nothing to be begun again. */
static bool is_begun(const struct reexec *reexec)
{
	return reexec->check || reexec->going || reexec->due;
}

static void begin_going(struct reexec *reexec)
{
	reexec->going = true;
	node_timer(reexec->node, &reexec->drain, DRAIN, on_drained, reexec);
	reexec_look(reexec->node);
}

static void refuse(struct reexec *reexec, const char *why)
{
	struct error err = { 0 };

	(void)error_refuse(&err, "'%s' cannot take over: %s; this agent goes on as it is",
			   reexec->program, why);
	log_error("%s", err.text);
	if (reexec->request)
		request_fail(TAKE_PTR(reexec->request), &err);
}

/* What it said of itself; it has proven by that that it runs and can read our configuration. */
static int judge(const struct reexec *reexec, const struct tool_result *result, json_t **ret,
		 struct error *err)
{
	size_t length = strcspn(result->err_text, "\n");
	int64_t min = 0, max = 0;
	int r;

	if (result->code != 0)
		return error_set(err, -EIO, "%.*s",
				 length ? (int)(length < 300 ? length : 300) : 12,
				 length ? result->err_text : "it only ends");
	r = json_parse(result->out, result->out_length, ret, err);
	if (r < 0)
		return r;
	min = json_int_or(json_object_get(*ret, "schema"), "min", 0);
	max = json_int_or(json_object_get(*ret, "schema"), "max", 0);
	if (min <= schema_loaded(reexec->node) && schema_loaded(reexec->node) <= max)
		return 0;
	return error_refuse(err,
			    "it knows records of schema %d to %d, and those of this cluster are of "
			    "schema %d",
			    (int)min, (int)max, (int)schema_loaded(reexec->node));
}

static void on_checked(void *ctx, int r, struct tool_result *result, const struct error *err)
{
	struct reexec *reexec = ctx;
	struct node *node = reexec->node;
	json_auto_t *told = NULL;
	struct error why = { 0 };

	reexec->check = NULL;
	if (r < 0) {
		refuse(reexec, err->text);
		return;
	}
	if (judge(reexec, result, &told, &why) < 0) {
		refuse(reexec, why.text);
		return;
	}
	events_add(node, NULL, "agent-replaced", "droverd %s goes on as '%s', version %s",
		   DROVER_VERSION, reexec->program, json_string_or(told, "version", "?"));
	/* Who asked hears of it by our end. */
	reexec->request = NULL;
	begin_going(reexec);
}

void reexec_begin(struct node *node, struct request *request)
{
	struct reexec *reexec = node->reexec;
	const char *root = node->config->paths.root;
	const char *argv[] = { reexec->program, "--check", *root ? "--root" : NULL, root, NULL };
	const struct spawn spawn = { .argv = argv, .stdin_fd = -1, .die_with_parent = true };
	struct error err = { 0 };

	if (is_begun(reexec)) {
		(void)error_try_again(&err, "this agent is about to be replaced already");
		if (request)
			request_fail(request, &err);
		return;
	}
	log_info("looking whether '%s' can take over", reexec->program);
	reexec->request = request;
	if (tool_start(node->loop, &spawn, CHECK_TIMEOUT, on_checked, reexec, &reexec->check,
		       &err) < 0)
		refuse(reexec, err.text);
}

void reexec_same(struct node *node)
{
	struct reexec *reexec = node->reexec;

	if (!reexec || is_begun(reexec))
		return;
	log_info("starting anew");
	free(reexec->program);
	reexec->program = xstrdup("/proc/self/exe");
	begin_going(reexec);
}

bool reexec_due(const struct node *node)
{
	return node->reexec && node->reexec->due;
}

char *reexec_program(const struct node *node)
{
	return reexec_due(node) ? xstrdup(node->reexec->program) : NULL;
}

int reexec_run(const char *program, char **argv, struct error *err)
{
	int r;

	(void)execv(program, argv);
	r = -errno;
	/* It was there a moment ago.  Guests and clients are better off with what we are. */
	log_error("cannot run '%s': %s; going on as we were", program, strerror(-r));
	(void)execv("/proc/self/exe", argv);
	return error_set(err, -errno, "cannot run '%s' again: %m", argv[0]);
}

/* ---- the child ---- */

static void config_freep(struct config **config)
{
	config_free(*config);
}

/* Half a package would be worse than none. */
static int check_keeper(struct error *err)
{
	CLEANUP_FREE char *program = keeper_program();
	const char *argv[] = { program, "--version", NULL };
	const struct spawn spawn = { .argv = argv, .stdin_fd = -1, .die_with_parent = true };
	CLEANUP(tool_result_done) struct tool_result result = { 0 };
	int r;

	r = tool_run(&spawn, CHECK_TIMEOUT / 2, &result, err);
	if (r < 0)
		return r;
	if (result.code == 0 && strcmp(result.out, "drover-keeper " DROVER_VERSION "\n") == 0)
		return 0;
	return error_refuse(err, "droverd " DROVER_VERSION " has another keeper beside it: '%s'",
			    program);
}

int reexec_check(const char *root, struct error *err)
{
	CLEANUP(config_freep) struct config *config = NULL;
	CLEANUP_FREE char *text = NULL;
	json_auto_t *value = NULL;
	int r;

	r = config_load(root, &config, err);
	if (r >= 0)
		r = check_keeper(err);
	if (r < 0)
		return r;
	value = json_pack("{s:s, s:o}", "version", DROVER_VERSION, "schema", schema_range_json());
	text = json_print(value);
	return puts(text) == EOF ? error_set(err, -EIO, "cannot write to standard output") : 0;
}
