#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Who may include whom (DESIGN 3, docs/ARCHITECTURE.md).  The rooms and the rooms that each may use
# are read from src/meson.build; every other folder of src with a main.c is a program, which may use
# all rooms and no other program.  And core decides only: no I/O, no clock, nothing remembered.

set -uo pipefail
cd "${1:-$(dirname "$0")/..}/src" || exit 1

declare -A sources users
wrong=0

complain()	# FILE[:LINE], SENTENCE
{
	printf 'src/%s: %s\n' "$1" "$2"
	wrong=$((wrong + 1))
}

# 'room': [['a.c', 'b.c'], ['room', 'room']], over several lines
read_rooms()
{
	local entry
	local -r form="^'([a-z]+)':\[\[([^]]*)\],\[([^]]*)\]\]$"

	while read -r entry; do
		[[ $entry =~ $form ]] || continue
		sources[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]//[\',]/ }
		users[${BASH_REMATCH[1]}]=${BASH_REMATCH[3]//[\',]/ }
	done < <(sed -n '/^rooms = {/,/^}/{s/#.*//;p}' meson.build | tr -d ' \t\n' |
		grep -oE "'[a-z]+':\[\[[^]]*\],\[[^]]*\]\]")
	[ ${#sources[@]} -ge 10 ] || {
		complain meson.build 'the list "rooms" cannot be read any more: mend read_rooms in tests/include-rule.sh'
		exit 1
	}
}

# What `user` may include: itself, the rooms of its list, or all of them if it is a program.  A
# folder without C sources (probe) only describes what two sides agree upon.
may_include()	# USER ROOM
{
	[ "$1" = "$2" ] && return
	compgen -G "$2/*.c" > /dev/null || return 0
	if [ -n "${sources[$1]+x}" ]; then
		[[ " ${users[$1]} " = *" $2 "* ]]
	else
		[ -n "${sources[$2]+x}" ]
	fi
}

check_includes()	# FOLDER
{
	local file line text room

	while IFS=: read -r file line text; do
		room=${text#*\"}
		if [[ $room != */* ]]; then
			complain "$file:$line" "says ${text#*include }; an include carries its folder"
			continue
		fi
		room=${room%%/*}
		may_include "$1" "$room" ||
			complain "$file:$line" "$1 must not include $room (src/meson.build: rooms)"
	done < <(grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$1"/*.[ch])
}

# A file that is in no list is compiled by nobody.
check_listed()	# FOLDER
{
	local file

	for file in "$1"/*.c; do
		if [ -n "${sources[$1]+x}" ]; then
			[[ " ${sources[$1]} " = *" ${file##*/} "* ]]
		else
			grep -qF "'src/$file'" ../meson.build
		fi || complain "$file" 'is in no list of sources'
	done
}

check_core()	# WHAT IS WRONG, PATTERN, [EXCEPT]
{
	local file line

	while IFS=: read -r file line _; do
		complain "$file:$line" "core decides only: $1"
	done < <(grep -HnE "$2" core/*.[ch] | grep -vE "${3:-^$}")
}

read_rooms
for folder in */; do
	folder=${folder%/}
	compgen -G "$folder/*.c" > /dev/null || continue
	check_includes "$folder"
	check_listed "$folder"
done
check_core 'this header is for I/O, time or processes' \
	'^#[[:space:]]*include[[:space:]]*<(unistd|fcntl|poll|signal|time|pthread|dirent|spawn|syslog|netdb|sys/|net/|netinet/|arpa/|linux/|systemd/|sqlite3)'
check_core 'of util it may use error, cleanup and mem' \
	'^#[[:space:]]*include[[:space:]]*"util/' '"util/(error|cleanup|mem)\.h"'
check_core 'this call does I/O, or depends on more than its arguments' \
	'(^|[^a-z_0-9.>])(fopen|fdopen|fprintf|vfprintf|dprintf|printf|puts|fputs|open|openat|read|write|close|ioctl|time|gettimeofday|clock_gettime|clock_[a-z]+|getenv|secure_getenv|rand|random|getrandom|getpid|kill|system|log_[a-z]+)\('
check_core 'a variable of the file remembers' \
	'^static ([^(]*[^(a-z_])?[a-z_]+(\[.*\])?( = .*)?;$'
exit $((wrong > 0))
