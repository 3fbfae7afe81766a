/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of images, read by hand (QEMU docs/interop/qcow2.txt): the size that the guest sees and
 * what lies below.  `qemu-img info` would cost a process at each start and would open, with our
 * rights, whatever a header names; a QEMU that a guest has taken over can write that header. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "storage/internal.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/mem.h"

#define HEADER_SIZE_MAX (64u * 1024)
#define HEADER_V2_SIZE 72
#define HEADER_V3_SIZE 104
#define BACKING_NAME_MAX 1023 /* as QEMU has it */
#define EXTENSION_END 0u
#define EXTENSION_BACKING_FORMAT 0xE2792ACAu
#define INCOMPATIBLE_DATA_FILE (UINT64_C(1) << 2)

static const char qcow2_magic[4] = { 'Q', 'F', 'I', '\xfb' };

void image_done(struct image *image)
{
	free(image->backing);
	image->backing = NULL;
}

static uint32_t header_u32(const char *header, size_t offset)
{
	uint32_t value;

	memcpy(&value, header + offset, sizeof(value));
	return be32toh(value);
}

static uint64_t header_u64(const char *header, size_t offset)
{
	uint64_t value;

	memcpy(&value, header + offset, sizeof(value));
	return be64toh(value);
}

/* Reads until `size` or the end of the file. */
static ssize_t header_read(int fd, char *header, size_t size)
{
	size_t length = 0;

	while (length < size) {
		ssize_t n = pread(fd, header + length, size - length, (off_t)length);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		length += (size_t)n;
	}
	return (ssize_t)length;
}

static int image_read_raw(int fd, const char *path, struct image *ret_image, struct error *err)
{
	struct stat st;
	uint64_t size = 0;

	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot look at '%s': %m", path);
	if (S_ISBLK(st.st_mode)) {
		if (ioctl(fd, BLKGETSIZE64, &size) < 0)
			return error_set(err, -errno, "cannot ask for the size of '%s': %m", path);
	} else {
		size = (uint64_t)st.st_size;
	}
	*ret_image = (struct image){ .size = size, .backing_format = -1 };
	return 0;
}

/* The name of the backing format out of the header extensions; -1 when there is none. */
static int header_backing_format(const char *header, size_t start, size_t end)
{
	char name[16];

	while (start + 8 <= end) {
		uint32_t type = header_u32(header, start);
		uint32_t length = header_u32(header, start + 4);

		start += 8;
		if (type == EXTENSION_END || length > end - start)
			break;
		if (type == EXTENSION_BACKING_FORMAT && length < sizeof(name)) {
			memcpy(name, header + start, length);
			name[length] = '\0';
			return volume_format_of(name);
		}
		start += ((size_t)length + 7) / 8 * 8;
	}
	return -1;
}

static int header_parse(const char *header, size_t length, const char *path,
			struct image *ret_image, struct error *err)
{
	uint32_t version = length < HEADER_V2_SIZE ? 0 : header_u32(header, 4);
	uint64_t start, name_offset;
	uint32_t name_length;

	if (length < HEADER_V2_SIZE || memcmp(header, qcow2_magic, sizeof(qcow2_magic)) != 0)
		return error_bad_data(err, "'%s' is no qcow2 image, as `format` says it is", path);
	if (version != 2 && (version != 3 || length < HEADER_V3_SIZE))
		return error_bad_data(err, "'%s' is qcow2 of version %u, only 2 and 3 are known",
				      path, version);
	start = version == 2 ? HEADER_V2_SIZE : header_u32(header, 100);
	if (version == 3 && (header_u64(header, 72) & INCOMPATIBLE_DATA_FILE))
		return error_refuse(err,
				    "'%s' keeps its data in another file, which is not "
				    "supported; convert it with 'qemu-img convert'",
				    path);
	if (header_u32(header, 32) != 0)
		return error_refuse(err,
				    "'%s' is encrypted, which is not supported; convert it with "
				    "'qemu-img convert'",
				    path);
	name_offset = header_u64(header, 8);
	name_length = header_u32(header, 16);
	*ret_image = (struct image){ .size = header_u64(header, 24), .backing_format = -1 };
	if (ret_image->size > INT64_MAX)
		return error_bad_data(err, "the header of '%s' is damaged (size)", path);
	if (name_offset == 0)
		return 0;
	if (name_length == 0 || name_length > BACKING_NAME_MAX || name_offset > length ||
	    name_length > length - name_offset || start > name_offset ||
	    memchr(header + name_offset, '\0', name_length))
		return error_bad_data(err, "the header of '%s' is damaged (backing file)", path);
	ret_image->backing = xcalloc(1, name_length + 1);
	memcpy(ret_image->backing, header + name_offset, name_length);
	ret_image->backing_format = header_backing_format(header, start, name_offset);
	return 0;
}

int image_read(int fd, enum volume_format format, const char *path, struct image *ret_image,
	       struct error *err)
{
	CLEANUP_FREE char *header = NULL;
	ssize_t length;

	if (format == VOLUME_RAW)
		return image_read_raw(fd, path, ret_image, err);
	header = xcalloc(1, HEADER_SIZE_MAX);
	length = header_read(fd, header, HEADER_SIZE_MAX);
	if (length < 0)
		return error_set(err, (int)length, "cannot read the header of '%s': %m", path);
	return header_parse(header, (size_t)length, path, ret_image, err);
}

int image_detect(int fd, const char *path, enum volume_format *ret_format, struct error *err)
{
	static const char *const foreign[] = { ".vmdk", ".vdi", ".vhd", ".vhdx", ".qed", ".ova" };
	const char *extension = strrchr(path, '.');
	char magic[sizeof(qcow2_magic)];
	ssize_t length = header_read(fd, magic, sizeof(magic));

	if (length < 0)
		return error_set(err, (int)length, "cannot read image '%s': %m", path);
	if (length == sizeof(magic) && !memcmp(magic, qcow2_magic, sizeof(magic))) {
		*ret_format = VOLUME_QCOW2;
		return 0;
	}
	if (extension && (!strcasecmp(extension, ".qcow2") || !strcasecmp(extension, ".qcow")))
		return error_bad_data(err, "image '%s' is no qcow2 image, as its name says", path);
	for (size_t i = 0; extension && i < ARRAY_SIZE(foreign); i++)
		if (!strcasecmp(extension, foreign[i]))
			return error_bad_data(
				err,
				"image '%s' is neither raw nor qcow2; convert it first: "
				"qemu-img convert -O qcow2 '%s' IMAGE.qcow2",
				path, path);
	*ret_format = VOLUME_RAW;
	return 0;
}
