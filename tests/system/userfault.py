# SPDX-License-Identifier: Apache-2.0
"""The right to handle faults, which a QEMU before 8.0 needs for postcopy: it asks by a system call
that the kernel gives to root only, unless this is set."""
import contextlib
import fcntl
import os
import pathlib

RIGHT = pathlib.Path('/proc/sys/vm/unprivileged_userfaultfd')
# What was there before the first of all runs on this machine that need it.
NOTE = pathlib.Path('/run/drover-test-userfaultfd')


def give():
	try:
		RIGHT.write_text('1', encoding='ascii')
		return True
	except OSError:
		return False


@contextlib.contextmanager
def right_to_handle_faults():
	"""Gives it until the last of those who need it has ended; says whether it could."""
	if not os.access(RIGHT, os.W_OK):
		yield False
		return
	with open(f'{NOTE}.lock', 'w', encoding='ascii') as gate, open(NOTE, 'a+', encoding='ascii') as note:
		fcntl.flock(gate, fcntl.LOCK_EX)
		note.seek(0)
		before = note.read() or RIGHT.read_text(encoding='ascii')
		if not give():
			yield False
			return
		note.truncate(0)
		note.write(before)
		note.flush()
		fcntl.flock(note, fcntl.LOCK_SH)
		fcntl.flock(gate, fcntl.LOCK_UN)
		try:
			yield True
		finally:
			fcntl.flock(gate, fcntl.LOCK_EX)
			with contextlib.suppress(BlockingIOError):  # others still need it: the last one puts it back
				fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
				RIGHT.write_text(before, encoding='ascii')
				note.truncate(0)
