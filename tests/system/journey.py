# SPDX-License-Identifier: Apache-2.0
"""What the tests of migration stand on: hosts of one cluster on one machine, and a witness that
hears a guest on all of them."""
import os
import re
import threading

from drover import Failure, wait
from field import Loopback

LINE = re.compile(rb'C ([0-9a-f]+) [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+\Z')
DISK_LINE = re.compile(rb'(?:D|DISK) ([0-9a-f]+) ([0-9a-f]+)\Z')
# Blocks that a guest with a disk keeps writing and reading in turn, and its words then.
RING = 32
DISK_WORDS = f'hz=100 ws=4 rate=4 disk={RING}'


def make_cluster(new_host, directory, names=('alpha', 'beta'), field=None, **config):
	"""Hosts with agents of one cluster, each with a certificate; on loopback unless they get a field.
	A busy machine gets more time for a switch than a user's would."""
	field = field or Loopback(directory)
	timers = {'migration_switch': '10s', 'migration_take_back': '2s', 'migration_keep': '5s'}
	config['timers'] = timers | config.get('timers', {})
	hosts = []
	for name in names:
		host = new_host(name, **field.config(name), **config)
		host.command = field.command(name)
		hosts.append(host.start_agent())
		host.wait(lambda h=host: h.drover('cluster', 'status').rc == 0, 'its store answers')
	hosts[0].cli('cluster', 'init')
	for host in hosts[1:]:
		token = hosts[0].cli('cluster', 'token').out.strip()
		host.cli('cluster', 'join', input=token)
	wait(lambda: all(member['address'] for member in
		hosts[0].cli('--format', 'json', 'cluster', 'status').json()['members']),
		'all have told where they are', dump=lambda: dump(hosts))
	return hosts


def share_volumes(hosts):
	"""As a file system that all of them mount; to be called before their first VM.  It is that of
	the last host, which is removed last."""
	there = hosts[-1].lib / 'volumes'
	there.mkdir(parents=True, exist_ok=True)
	for host in hosts[:-1]:
		if (host.lib / 'volumes').is_dir():
			(host.lib / 'volumes').rmdir()
		(host.lib / 'volumes').symlink_to(there)


def holder(hosts, name):
	"""The host on which the VM runs, or None."""
	for host in hosts:
		qemu = host.qemu(name)
		vm = host.vm(name) if qemu else None
		if vm and vm['state'] == 'running' and vm['pid'] == qemu.pid and not vm.get('migration'):
			return host
	return None


def dump(hosts):
	return '\n'.join(f'===== {host.name} =====\n{host.dump()}' for host in hosts)


def wait_runs_on(hosts, name, host, deadline=None):
	"""Waits until the VM runs there, and nothing of it anywhere else."""
	others = [other for other in hosts if other is not host]

	def there():
		return holder([host], name) and not any(other.qemus(name) for other in others)
	wait(there, f"VM '{name}' runs on {host.name} and nowhere else", deadline,
		lambda: dump(hosts))
	return host.vm(name)


def timelines(host, name):
	"""What its keepers wrote of migrations, oldest first."""
	import json
	text = host.text(host.vm_log(name, 'migrations.jsonl'))
	return [json.loads(line) for line in text.splitlines()]


def happened(host, name, event):
	"""How often its keepers told that; `drover events` would ask the node that has the VM now."""
	return host.text(host.vm_log(name, 'events.jsonl')).count(f'"event":"{event}"')


class Lives:
	"""That a guest that has booted anew is not heard in its former life any more, on any host.

	What is heard is read in passes over all hosts.  So what is found in the second pass after that in
	which a life began was said after its beginning, whatever the order within a pass."""
	REACH = 50  # ticks whose lines may be missing in a row

	def __init__(self):
		self.passed, self.begun, self.last = 0, [], []
		self.faults = []

	def pass_over(self):
		self.passed += 1

	def begin(self):
		self.begun.append(self.passed)
		self.last.append(0)

	def tick(self, host, seq):
		if not self.last:
			self.begun, self.last = [self.passed], [seq]
		for i in reversed(range(len(self.last))):
			if self.last[i] <= seq <= self.last[i] + self.REACH:
				self.last[i] = seq
				self.look(host, seq, i)
				return

	def look(self, host, seq, life):
		if life + 1 < len(self.begun) and self.passed > self.begun[life + 1] + 1:
			self.faults.append(f'tick {seq} of a life that was over on {host.name}')


class Witness:
	"""Hears what a micro guest says on all hosts.  Each tick is said once, on one of them, and none
	is missing but those whose line was cut in two by a switch: what is left of it on either side is
	nobody's line, and must not be taken for one with what comes behind it.

	A guest that keeps writing numbers to its disk (DISK_WORDS) tells which one is the last on it, and
	how many blocks it did not find as they had been written.  Whatever happens, also when it boots
	anew, what it had told to be on the disk is there."""

	def __init__(self, hosts, name):
		self.hosts, self.name = hosts, name
		self.offsets, self.rests, self.cut = {}, {}, {}
		self.ticks, self.faults = {}, []
		self.number, self.disk_faults = None, []
		self.lives = Lives()
		self.done, self.lock = threading.Event(), threading.Lock()
		for host in hosts:
			path = host.vm_log(name, 'serial.log')
			self.offsets[host] = os.path.getsize(path) if path.exists() else 0
			self.rests[host] = b''
		self.thread = threading.Thread(target=self.follow, daemon=True)
		self.thread.start()
		self.more(3)

	def follow(self):
		while not self.done.wait(0.02):
			self.read()
		self.read()

	def read(self):
		with self.lock:
			for host in self.hosts:
				self.read_one(host)
			self.lives.pass_over()

	def read_one(self, host):
		try:
			with open(host.vm_log(self.name, 'serial.log'), 'rb') as file:
				file.seek(self.offsets[host])
				data = file.read()
		except FileNotFoundError:
			return
		if not data:
			return
		self.offsets[host] += len(data)
		for other in self.hosts:
			if other is not host:
				self.rests[other] = b''
				self.cut[other] = True
		lines = (self.rests[host] + data).split(b'\n')
		if self.cut.pop(host, False):
			lines[0] = b'?' + lines[0]
		self.rests[host] = lines.pop()
		for line in lines:
			self.take(host, line)

	def take(self, host, line):
		if match := DISK_LINE.match(line):
			self.take_disk(host, int(match[1], 16), int(match[2], 16))
		if b'MICRO-UP' in line:
			self.lives.begin()
		match = LINE.match(line)
		if not match:
			return
		self.lives.tick(host, int(match[1], 16))
		seq, bad = int(match[1], 16), int(match[2], 16)
		if seq in self.ticks:
			self.faults.append(f'tick {seq} on {self.ticks[seq].name} and on {host.name}')
		if bad:
			self.faults.append(f'{bad} damaged pages at tick {seq} on {host.name}')
		self.ticks[seq] = host

	def take_disk(self, host, number, bad):
		if number < (self.number or 0):
			self.disk_faults.append(f'number {self.number} was on the disk, now {number} on {host.name}')
		if bad:
			self.disk_faults.append(f'{bad} wrong blocks at number {number} on {host.name}')
		self.number = number

	def check_disk(self):
		"""All blocks are as they were written: it has come round to each of them once more."""
		wait(lambda: self.number is not None, f"guest '{self.name}' looks at its disk", dump=lambda: dump(self.hosts))
		goal = self.number + RING + 8
		wait(lambda: self.disk_faults or self.number >= goal, f"guest '{self.name}' writes on to its disk",
			dump=lambda: dump(self.hosts))
		self.complain(self.disk_faults)

	def more(self, count=20):
		"""Waits until it has counted on by so much."""
		goal = max(self.ticks, default=0) + count
		wait(lambda: max(self.ticks, default=0) >= goal, f"guest '{self.name}' counts on",
			dump=lambda: dump(self.hosts))

	def check(self, moves, count=20):
		"""`moves`: how often it was switched, or begun to be."""
		self.more(count)
		if self.number is not None:
			self.check_disk()
		self.close()
		first, last = min(self.ticks), max(self.ticks)
		missing = [seq for seq in range(first, last) if seq not in self.ticks]
		if len(missing) > 2 * moves:
			self.faults.append(f'ticks {missing[:9]} are missing, {len(missing)} in {moves} moves')
		self.complain(self.faults)

	def check_lives(self):
		self.complain(self.lives.faults)

	def complain(self, faults):
		if faults:
			raise Failure(f"guest '{self.name}': {'; '.join(faults[:5])}\n{dump(self.hosts)}")

	def close(self):
		self.done.set()
		self.thread.join()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()
