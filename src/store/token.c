/* SPDX-License-Identifier: Apache-2.0 */
#include "store/token.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"
#include "util/mem.h"

#define TOKEN_MAX 512

/* It opens all records: who may read the file may do to the VMs what he likes. */
static int check_file(const char *path, struct error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return error_set(err, -errno, "cannot read the token of Consul in '%s': %m", path);
	if (st.st_mode & 077)
		return error_set_class(err, ERROR_BAD_DATA, -EPERM,
				       "the token of Consul in '%s' can be read by others: make it "
				       "ours alone with 'chmod 600 %s'",
				       path, path);
	return 0;
}

int token_header(const char *path, char **ret_header, struct error *err)
{
	CLEANUP_FREE char *text = NULL;
	int r;

	r = check_file(path, err);
	if (r == 0)
		r = file_read(AT_FDCWD, path, TOKEN_MAX, &text, NULL, err);
	if (r < 0)
		return r;
	text[strcspn(text, " \t\r\n")] = '\0';
	if (!text[0])
		return error_bad_data(err, "the file '%s' holds no token of Consul", path);
	*ret_header = xasprintf("X-Consul-Token: %s", text);
	explicit_bzero(text, strlen(text));
	return 0;
}

void token_forget(char *header)
{
	if (header)
		explicit_bzero(header, strlen(header));
	free(header);
}
