# SPDX-License-Identifier: Apache-2.0
"""Bare QEMUs over QMP, without Drover: for tests of what QEMU itself does.

The guest is the micro guest under TCG with one small disk.  Monitors are socket pairs and migration
streams are descriptors handed in with `getfd`, as the keeper does it.
"""
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess

import drover

IMAGE_SIZE = 1 << 20
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python has no name for it
# The byte of the image file that QEMU locks for as long as it may write there (file-posix.c:
# RAW_LOCK_PERM_BASE + BLK_PERM_WRITE's number).
WRITE_LOCK = 101
# The versions that tests/qemus/fetch knows, and how the one of this machine is called in tests.
SYSTEM = 'system'
OTHERS = ('5.2', '10.0', '11.1')


class Refused(Exception):
	"""QEMU's answer is an error; the text is its `desc`."""


class Gone(Exception):
	"""QEMU has closed its monitor; the text is what it said at the end."""


def programs():
	"""{version: path of the program}: those that are there."""
	found = {SYSTEM: shutil.which('qemu-system-x86_64')}
	where = os.environ.get('DROVER_QEMUS')
	for version in OTHERS if where else ():
		program = pathlib.Path(where).resolve() / version / 'qemu-system-x86_64'
		found[version] = str(program) if program.exists() else None
	return found


def dashed(arguments):
	return {name.replace('_', '-'): value for name, value in arguments.items()}


class Qemu:
	"""One process and its monitor."""

	def __init__(self, program, directory, name, *options, words='hz=100 ws=4 rate=4'):
		self.name = name
		self.said = directory / f'{name}.err'
		self.serial = directory / f'{name}.serial'
		self.serial.touch()
		self.events = []
		self.asked = 0
		self.rest = b''
		self.monitor, theirs = socket.socketpair()
		self.monitor.settimeout(drover.DEADLINE)
		args = [program, '-nodefaults', '-no-user-config', '-display', 'none', '-S',
			'-machine', 'pc-q35-5.2,accel=tcg', '-cpu', 'qemu64', '-m', '32', '-bios', drover.QBOOT,
			'-kernel', str(drover.build_dir() / 'tests/guest/micro/micro.elf'), '-append', words,
			'-chardev', f'socket,id=monitor,fd={theirs.fileno()}',
			'-mon', 'chardev=monitor,mode=control', '-serial', f'file:{self.serial}', *options]
		with open(self.said, 'wb') as said:
			self.popen = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
				pass_fds=[theirs.fileno()], start_new_session=True)
		theirs.close()
		self.pidfd = os.pidfd_open(self.popen.pid)
		try:
			self.message()  # the greeting
			self.ask('qmp_capabilities', enable=['oob'])
		except BaseException:
			self.close()
			raise

	# ---- the monitor ----

	def message(self):
		while b'\n' not in self.rest:
			try:
				data = self.monitor.recv(1 << 16)
			except ConnectionResetError:
				data = b''
			if not data:
				raise Gone(self.said.read_text(encoding='utf-8', errors='replace'))
			self.rest += data
		line, _, self.rest = self.rest.partition(b'\n')
		return json.loads(line)

	def tell(self, command, fds=(), how='execute', **arguments):
		"""Without waiting for the answer; returns its number."""
		self.asked += 1
		text = json.dumps({how: command, 'arguments': dashed(arguments), 'id': self.asked})
		with contextlib.suppress(BrokenPipeError):  # then reading tells why
			socket.send_fds(self.monitor, [text.encode()], list(fds))
		return self.asked

	def ask(self, command, fds=(), how='execute', **arguments):
		"""The answer; events that come before it are kept in `events`."""
		number = self.tell(command, fds, how, **arguments)
		while True:
			message = self.message()
			if 'event' in message:
				self.events.append(message)
			elif message.get('id') != number:
				continue  # answers something that was not waited for
			elif 'error' in message:
				raise Refused(message['error']['desc'])
			else:
				return message['return']

	def silent(self):
		"""Whether the monitor does not answer a simple question for a while."""
		self.monitor.settimeout(0.5)
		try:
			self.ask('query-status')
			return False
		except TimeoutError:
			return True
		finally:
			self.monitor.settimeout(drover.DEADLINE)

	def refuses(self, command, **arguments):
		"""What QEMU has to say against a command."""
		try:
			self.ask(command, **arguments)
		except Refused as refusal:
			return str(refusal)
		raise drover.Failure(f"{self.name} took '{command}', {arguments}")

	def give(self, name, sock):
		"""Hands a descriptor over, to be called by that name; ours is closed."""
		self.ask('getfd', [sock.fileno()], fdname=name)
		sock.close()

	def status(self):
		return self.ask('query-status')['status']

	def migration(self):
		return self.ask('query-migrate').get('status')

	def wait(self, fact, what):
		return drover.wait(fact, f'{self.name}: {what}', dump=self.dump)

	def wait_status(self, *wanted):
		self.wait(lambda: self.status() in wanted, f'status {" or ".join(wanted)}')

	def wait_migration(self, *wanted):
		self.wait(lambda: self.migration() in wanted, f'migration {" or ".join(wanted)}')

	def wait_event(self, name, **data):
		def seen():
			self.ask('query-status')
			return [event for event in self.events if event['event'] == name and
				data.items() <= event.get('data', {}).items()]
		return self.wait(seen, f'event {name} {data}')[0]

	def migrations_heard(self):
		"""The states that a migration has gone through, as far as events were read."""
		return [event['data']['status'] for event in self.events if event['event'] == 'MIGRATION']

	def version(self):
		version = self.ask('query-version')['qemu']
		return version['major'], version['minor']

	def hears(self, status):
		"""Waits until a migration comes to that state, and asks nothing meanwhile."""
		while status not in self.migrations_heard():
			message = self.message()
			if 'event' in message:
				self.events.append(message)

	def capabilities(self, *on):
		self.ask('migrate-set-capabilities', capabilities=[
			{'capability': name, 'state': True} for name in on])

	# ---- the process ----

	def signal(self, number):
		signal.pidfd_send_signal(self.pidfd, number)

	def freeze(self):
		self.signal(signal.SIGSTOP)
		process = drover.Process(self.popen.pid)
		drover.wait(process.stopped, f'{self.name} stands still')

	def thaw(self):
		self.signal(signal.SIGCONT)

	def kill(self):
		if self.popen.poll() is None:
			self.signal(signal.SIGKILL)
		self.ended()

	def ended(self):
		"""Waits for its end; the exit code."""
		if not select.select([self.pidfd], [], [], drover.DEADLINE)[0]:
			raise drover.Failure(f'{self.name} does not end\n{self.dump()}')
		return self.popen.wait()

	def close(self):
		self.kill()
		os.close(self.pidfd)
		self.monitor.close()

	def may_write(self, image):
		"""Whether it holds the lock that QEMU takes on a file for writing: its block device is
		active then."""
		inode = os.stat(image).st_ino
		for fd in os.listdir(f'/proc/{self.popen.pid}/fd'):
			with contextlib.suppress(FileNotFoundError):
				if os.stat(f'/proc/{self.popen.pid}/fd/{fd}').st_ino != inode:
					continue
				info = pathlib.Path(f'/proc/{self.popen.pid}/fdinfo/{fd}').read_text(encoding='utf-8')
				for first, last in re.findall(r'lock:.* OFDLCK .* (\d+) (\d+|EOF)\n', info):
					if int(first) <= WRITE_LOCK and (last == 'EOF' or WRITE_LOCK <= int(last)):
						return True
		return False

	# ---- the guest ----

	def ticks(self):
		return self.serial.read_bytes().count(b'\nC ')

	def counts_on(self):
		goal = self.ticks() + 3
		self.wait(lambda: self.ticks() >= goal, 'the guest counts on')

	def dump(self):
		said = self.said.read_text(encoding='utf-8', errors='replace')
		return f'--- {self.name} ---\n{said}\n{self.events[-20:]}'


class Pair:
	"""A source whose guest runs, and a target that waits for it."""

	def __init__(self, programs, directory, words, shared=True):
		self.images = [directory / 'source.img', directory / ('source.img' if shared else 'target.img')]
		for image in self.images:
			image.write_bytes(bytes(IMAGE_SIZE))
		self.programs, self.directory, self.words = programs, directory, words
		self.all = []
		try:
			self.source = self.start(programs[0], 'source', self.images[0])
			self.version = self.source.version()
			self.new_target()
			self.source.ask('cont')
			self.source.counts_on()
		except BaseException:
			self.close()
			raise

	def new_target(self):
		self.target = self.start(self.programs[1], 'target', self.images[1], '-incoming', 'defer')

	def start(self, program, name, image, *options):
		qemu = Qemu(program, self.directory, name,
			'-blockdev', f'driver=file,node-name=image,filename={image}',
			'-blockdev', 'driver=raw,node-name=disk,file=image',
			'-device', 'virtio-blk-pci,id=blk,drive=disk', *options, words=self.words)
		self.all.append(qemu)
		qemu.capabilities('events')
		return qemu

	def connect(self, narrow=False):
		"""The two ends of a stream; `grip` stays with us.  A narrow one takes next to nothing that
		is not read."""
		ours, theirs = socket.socketpair()
		ours.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 1 if narrow else 8 << 20)
		theirs.settimeout(drover.DEADLINE)
		self.grip = ours.dup()
		return ours, theirs

	def migrate(self, narrow=False):
		ours, theirs = self.connect(narrow)
		self.target.give('stream', theirs)
		self.target.ask('migrate-incoming', uri='fd:stream')
		self.send(ours)

	def send(self, stream):
		self.source.give('stream', stream)
		# QEMU makes what it gets by getfd blocking.
		self.grip.setblocking(False)
		self.source.ask('migrate', uri='fd:stream')

	def break_stream(self):
		self.grip.shutdown(socket.SHUT_RDWR)

	def both(self, *capabilities):
		for qemu in (self.source, self.target):
			qemu.capabilities(*capabilities)

	def to_switch(self, narrow=False):
		"""Until the source has stopped its vcpus and waits for migrate-continue."""
		self.source.capabilities('pause-before-switchover')
		self.migrate(narrow)
		self.source.wait_migration('pre-switchover')

	def go_on(self):
		"""Not waited for: a source that is stuck in the switch does not answer."""
		self.source.tell('migrate-continue', state='pre-switchover')

	def get_stuck(self):
		"""From pre-switchover: the source has to write its devices' state and nobody reads it."""
		self.target.freeze()
		self.go_on()
		self.source.hears('device')
		self.source.wait(self.source.silent, 'it is stuck')

	def check_guest(self):
		"""What both consoles together heard has no gap, and no page was lost.  Before 9.0 a guest
		under TCG may lose what it writes while it is copied (docs/QEMU.md): then nothing is said
		about what it does at the target."""
		heard = [self.source.serial.read_bytes(), self.target.serial.read_bytes()]
		if self.version < (9, 0):
			heard[1] = b''
		lines = [line.split() for line in b''.join(heard).split(b'\n')[:-1]]
		ticks = [(int(line[1], 16), int(line[3], 16)) for line in lines if line[:1] == [b'C']]
		faults = [f'{seq} comes after {before}' for (before, _), (seq, _) in zip([(0, 0), *ticks], ticks)
			if seq != before + 1]
		faults += [f'{bad} lost pages at {seq}' for seq, bad in ticks if bad]
		if faults:
			raise drover.Failure(f'{faults[:3]}; the two heard {heard[0][-100:]}, {heard[1][:100]}')

	def close(self):
		for qemu in self.all:
			qemu.close()
