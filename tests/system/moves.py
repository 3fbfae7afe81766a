# SPDX-License-Identifier: Apache-2.0
"""A guest that is moved back and forth between hosts of one cluster while whoever takes part is killed or
halted, and what has to hold afterwards.  For the kill tests of migration and its campaign."""
import contextlib
import json
import os
import pathlib
import signal
import socket

from drover import Failure, Host, micro, pidfd_getfd, wait
from field import Loopback
from journey import DISK_WORDS, Witness, dump, make_cluster, share_volumes, wait_runs_on

NAME = 'm1'
# All that may die: S is where the guest is, T where it is to be.
PARTIES = ('S-keeper', 'T-keeper', 'S-agent', 'T-agent', 'S-qemu', 'T-qemu')

# Before there is a receiver; while there is one; when nothing was sent yet or all of it.
SOURCE = [f'keeper.source.{step}' for step in ('prepared', 'move', 'moved', 'stream', 'copying',
	'switch', 'continue', 'stopped', 'running', 'finish')]
TARGET = [f'keeper.receive.{step}' for step in ('probe', 'plan', 'book', 'volumes', 'launch', 'meet',
	'verify', 'done', 'offer', 'prepared', 'stream', 'stopped', 'take', 'running')] + \
	['keeper.migration.cont']
OF_DISKS = ['keeper.source.mirrored', 'keeper.source.mirror-end', 'keeper.source.mirror-ended',
	'keeper.receive.disks', 'keeper.receive.disks-ended', 'keeper.source.copying',
	'keeper.source.stopped', 'keeper.source.finish', 'keeper.receive.take', 'keeper.receive.running']
RECORD = ['keeper.owner.asking', 'keeper.owner.answered', 'agent.owner-write', 'agent.owner-written']

OF_POSTCOPY = ['keeper.source.postcopy', 'keeper.source.postcopy-stopped', 'keeper.source.reopened',
	'keeper.source.resumed', 'keeper.receive.postcopy-agreed', 'keeper.receive.reopened',
	'keeper.receive.all-here']

STEPS = [*[('S', step) for step in SOURCE + RECORD], *[('T', step) for step in TARGET + RECORD]]
DISK_STEPS = [('S' if '.source.' in step else 'T', step) for step in OF_DISKS]
POSTCOPY_STEPS = [('S' if '.source.' in step else 'T', step) for step in OF_POSTCOPY]
# Who is left alone waits this long, not a minute.
TIMERS = {'migration_keep': '3s', 'migration_offer': '10s'}
# An election of the servers takes less.
TIMERS_OF_FIELD = {'session': '8s', 'migration_stall': '5s'}
# A guest whose time is over before its memory was sent, where it has little bandwidth.
POSTCOPY_WORDS = 'hz=100 ws=16 rate=32'
FILLED = 80  # ticks after which it has written to all of that


def wait_filled(host):
	def last_tick():
		lines = [line.split() for line in host.serial(NAME).split('\n')[-9:-1]]
		return max((int(line[1], 16) for line in lines if line[:1] == ['C'] and len(line) == 5), default=0)
	host.wait(lambda: last_tick() >= FILLED, 'it has written enough')


def phase(host):
	return ((host.vm(NAME) or {}).get('migration') or {}).get('phase')


def break_stream(host):
	"""Of QEMU's connections only the stream is TCP.  How many there were; of a QEMU that has gone, none."""
	process, numbers, broken = host.qemu(NAME), [], 0
	if process:
		with contextlib.suppress(OSError):
			numbers = os.listdir(f'/proc/{process.pid}/fd')
	for number in numbers:
		with contextlib.suppress(OSError), socket.socket(fileno=pidfd_getfd(process.fd, int(number))) as end:
			if end.family in (socket.AF_INET, socket.AF_INET6):
				end.shutdown(socket.SHUT_RDWR)
				broken += 1
	return broken


@contextlib.contextmanager
def staged(directory, **parameters):
	"""A scene for many cases: its hosts go with it, and by then nothing may be left on them."""
	hosts = []

	def new_host(name, **config):
		hosts.append(Host(name, **config))
		return hosts[-1]
	try:
		yield Scene(new_host, directory, **parameters)
		for host in hosts:
			host.check_nothing_left()
	finally:
		for host in hosts:
			host.destroy()
			host.remove()


class Scene:
	def __init__(self, new_host, directory, names=('alpha', 'beta'), shared=False, field=None, timers=None,
			**parameters):
		self.field = field or Loopback(directory)
		self.parameters, self.shared = parameters, shared
		self.hosts = make_cluster(new_host, directory, names, self.field,
			timers=TIMERS | (TIMERS_OF_FIELD if self.field.servers else {}) | (timers or {}),
			storage={'shared': shared})
		if shared:
			share_volumes(self.hosts)
		self.volumes = [volume['name'] for volume in parameters.get('volumes', [])] + \
			(['root'] if 'disk' in parameters else [])
		self.source = self.hosts[0]
		self.source.apply(self.definition(self.source))
		self.source.wait_state(NAME, 'running')

	def definition(self, host):
		words = {'words': DISK_WORDS} if 'disk' in self.parameters else {}
		return micro(NAME, kvm_host=host.name, **(words | self.parameters))

	def send(self, target):
		"""Changes where it belongs; whichever agent lives can be told."""
		text = json.dumps(self.definition(target))
		for host in (target, self.source):
			if host.agent_process and host.drover('apply', '-', input=text).rc == 0:
				return
		raise Failure(f'nobody takes the order\n{dump(self.hosts)}')

	def process(self, party, target):
		role, _, kind = party.partition('-')
		host = self.source if role == 'S' else target
		if kind == 'agent':
			return host.agent_process
		return host.keeper(NAME) if kind == 'keeper' else host.qemu(NAME)

	def strike(self, party, target, number=signal.SIGKILL):
		"""Returns the process that was hit, or None when there is none."""
		process = self.process(party, target)
		if process and number == signal.SIGKILL:
			process.kill()
			if party.endswith('agent'):
				(self.source if party[0] == 'S' else target).reap_agent()
		elif process:
			process.signal(number)
		return process

	def revive(self):
		for host in self.hosts:
			host.hold_at()
			if host.agent_process and not host.agent_process.alive:
				host.reap_agent()
			if not host.agent_process:
				host.start_agent()

	def arrive(self, target, deadline=None):
		"""It runs there, and nothing of the way there is left on any host."""
		wait_runs_on(self.hosts, NAME, target, deadline)
		wait(lambda: not self.left(target), 'nothing is left of the move', deadline,
			lambda: f'left: {self.left(target)}\n{dump(self.hosts)}')
		self.source = target

	def left(self, at):
		"""I9, when it runs on `at` and nothing else is under way."""
		found = [f'{host.name}: {thing}' for host in self.hosts if host is not at
			for thing in host.left()]
		record = self.owner()
		if (record['node'], record['phase']) != (at.name, 'held') or record.get('feeder'):
			found.append(f'owner record {record}')
		for host in [at] if self.shared else self.hosts:
			found += self.odd_files(host, host is at)
		qemu = at.qemu(NAME)
		if qemu:
			run = pathlib.Path(f'/proc/{qemu.pid}/root/run')
			found += [f'{at.name}: key {path}' for path in run.rglob('keys.psk')]
		if (at.vm(NAME) or {}).get('wish') != 'run':
			found.append(f'{at.name}: {at.vm(NAME)}')
		return found

	def odd_files(self, host, there):
		directory = host.lib / 'volumes' / NAME
		files = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
		wanted = {f'{volume}.{kind}' for volume in self.volumes if there for kind in ('raw', 'claim')}
		return [f'{host.name}: {name}' for name in sorted(files ^ wanted)
			if not name.endswith('.gone.raw')]

	def owner(self):
		return self.field.read(f'/drover/vms/{NAME}/owner')

	def wait(self, fact, what, deadline=None):
		return wait(fact, what, deadline, lambda: dump(self.hosts))

	def witness(self):
		return Witness(self.hosts, NAME)
