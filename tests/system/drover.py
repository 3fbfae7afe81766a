# SPDX-License-Identifier: Apache-2.0
"""What the system tests stand on: a host of one's own, its guests, and waiting for facts.

A Host is one agent on one root of its own, with real keepers and real QEMUs.  It finds processes by
the root (or the root's id) on their command lines, never by a bare number, and signals them through
pidfds, so that a test run next to other agents cannot hit theirs.

Nothing here pauses for a while and hopes: wait() looks for a fact until its deadline and, when the
fact does not come, fails with everything that is known about the host.
"""
import contextlib
import ctypes
import fcntl
import functools
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
QBOOT = '/usr/share/qemu/qboot.rom'

DEADLINE = 60 * float(os.environ.get('DROVER_TEST_SCALE', '1'))
LOOK_EVERY = 0.02

# Timers scaled down to what a test can wait for, and up to what a busy machine needs.
TIMERS = {
	'graceful_stop': '5s', 'stop_repeat': '300ms', 'kill': '3s', 'qmp': '2s', 'qmp_ping': '300ms',
	'qmp_greeting': '4s', 'guest_agent': '3s', 'store_retry': '100ms', 'backoff_first': '100ms', 'backoff_max': '2s',
	'keeper_silent': '2s', 'probe': '10s', 'keeper_ping': '300ms', 'settle_files': '30ms', 'command': '60s',
}


class Failure(AssertionError):
	"""A fact that did not come, with what is known about the host."""


def build_dir():
	named = os.environ.get('DROVER_BUILD')
	for candidate in [named] if named else ['build-check', 'build']:
		path = (SOURCE / candidate).resolve()
		if (path / 'droverd').exists():
			return path
	return None


def guest_dir():
	named = os.environ.get('DROVER_GUEST')
	for candidate in [named] if named else ['build-check/guest', '/tmp/drover-guest']:
		path = (SOURCE / candidate).resolve()
		if (path / 'vmlinuz').exists():
			return path
	return None


def wait(fact, what, deadline=None, dump=None):
	"""Looks until fact() is true and returns what it returned."""
	end = time.monotonic() + (DEADLINE if deadline is None else deadline)
	while True:
		value = fact()
		if value:
			return value
		if time.monotonic() > end:
			raise Failure(f'this did not happen: {what}\n{dump() if dump else ""}')
		time.sleep(LOOK_EVERY)


class Process:
	"""One process, proven by a pidfd that was opened before its command line was read."""

	def __init__(self, pid):
		self.pid = pid
		self.fd = os.pidfd_open(pid)
		try:
			with open(f'/proc/{pid}/cmdline', 'rb') as file:
				self.args = file.read().decode(errors='replace').split('\0')[:-1]
			with open(f'/proc/{pid}/stat', encoding='utf-8') as file:
				fields = file.read().rpartition(')')[2].split()
			self.state, self.start_time = fields[0], int(fields[19])
		except (OSError, IndexError) as error:
			os.close(self.fd)
			self.fd = -1
			raise ProcessLookupError(pid) from error

	def __del__(self):
		if getattr(self, 'fd', -1) >= 0:
			os.close(self.fd)

	def __eq__(self, other):
		return isinstance(other, Process) and \
			(self.pid, self.start_time) == (other.pid, other.start_time)

	def __hash__(self):
		return hash((self.pid, self.start_time))

	def __repr__(self):
		return f'<{self.pid} {" ".join(self.args)[:100]}>'

	@property
	def alive(self):
		return not select.select([self.fd], [], [], 0)[0]

	def signal(self, number):
		with contextlib.suppress(ProcessLookupError):
			signal.pidfd_send_signal(self.fd, number)

	def kill(self):
		"""SIGKILL, and comes back when it is gone."""
		self.signal(signal.SIGKILL)
		self.gone()

	def gone(self, deadline=DEADLINE):
		if not select.select([self.fd], [], [], deadline)[0]:
			raise Failure(f'{self} does not end')

	def proc(self, name):
		return pathlib.Path(f'/proc/{self.pid}/{name}').read_text(encoding='utf-8')

	def field(self, name):
		"""A line of /proc/PID/status."""
		for line in self.proc('status').splitlines():
			key, _, value = line.partition(':')
			if key == name:
				return value.strip()
		return None

	def stopped(self):
		return self.field('State').startswith(('T', 't'))

	def fds(self):
		links = []
		for fd in os.listdir(f'/proc/{self.pid}/fd'):
			with contextlib.suppress(OSError):
				links.append(os.readlink(f'/proc/{self.pid}/fd/{fd}'))
		return links

	def take_socket(self, chardev):
		"""A QEMU's end of the connection to one of its chardevs, as a socket of ours: what is done
		to it happens to QEMU, and while it is open QEMU's peer sees no end."""
		[listener] = [word[3:] for arg in self.args if arg.startswith(f'socket,id={chardev},')
			for word in arg.split(',') if word.startswith('fd=')]
		with open('/proc/net/unix', encoding='utf-8') as file:
			paths = {f'socket:[{row[6]}]': row[7] for row in map(str.split, file) if len(row) == 8}

		def end_of(fd):
			with contextlib.suppress(OSError):
				return os.readlink(f'/proc/{self.pid}/fd/{fd}')
		path = paths[end_of(listener)]
		[end] = [fd for fd in os.listdir(f'/proc/{self.pid}/fd')
			if fd != listener and paths.get(end_of(fd)) == path]
		return socket.socket(fileno=pidfd_getfd(self.fd, int(end)))


def pidfd_getfd(pidfd, fd):
	taken = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, fd, 0)
	if taken < 0:
		raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
	return taken


def processes(which):
	"""All processes whose argument list `which` likes; zombies have none and are left out."""
	found = []
	for entry in os.listdir('/proc'):
		if not entry.isdigit():
			continue
		with contextlib.suppress(OSError):
			process = Process(int(entry))
			if process.args and process.state != 'Z' and which(process.args):
				found.append(process)
	return found


class Result:
	"""What a command of drover said."""

	def __init__(self, args, done):
		self.args = args
		self.rc = done.returncode
		self.out_bytes, self.err_bytes = done.stdout, done.stderr
		self.out = done.stdout.decode(errors='replace')
		self.err = done.stderr.decode(errors='replace')

	def json(self):
		return json.loads(self.out)

	def __repr__(self):
		return f'drover {" ".join(self.args)}: {self.rc}\n{self.out}{self.err}'


def takes_direct_io(directory):
	path = os.path.join(directory, f'direct-{os.getpid()}')
	try:
		os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o600))
		return True
	except OSError:
		return False
	finally:
		with contextlib.suppress(OSError):
			os.unlink(path)


def new_root():
	"""In memory where volumes can be there too: nothing here measures a disk."""
	where = '/dev/shm' if os.path.isdir('/dev/shm') and takes_direct_io('/dev/shm') else None
	return pathlib.Path(os.path.realpath(tempfile.mkdtemp(prefix='drover-test-', dir=where)))


@functools.cache
def kvm_model():
	"""A CPU model with which the micro guest runs under KVM here, found out by running it; None: with
	none of these.  A KVM may have no part of a named model, abort with `host`, or run nothing."""
	for model in ('host', 'qemu64', 'qemu64,-pni', 'pentium'):
		cpu = model if model == 'host' else f'{model},enforce=on'
		with subprocess.Popen(['qemu-system-x86_64', '-nodefaults', '-no-user-config', '-display', 'none',
				'-machine', 'q35,accel=kvm', '-cpu', cpu, '-m', '64', '-bios', QBOOT, '-serial', 'stdio',
				'-kernel', str(build_dir() / 'tests/guest/micro/micro.elf'), '-append', 'hz=100 ws=4 rate=4'],
				stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as guest:
			try:
				if select.select([guest.stdout], [], [], DEADLINE)[0] and guest.stdout.readline():
					return model
			finally:
				guest.kill()
	return None


def micro(name, words='hz=100 ws=4 rate=4', accelerator=None, **parameters):
	"""Definition of a micro guest (tests/guest/micro): up in 0.1 s, counts on its console."""
	accelerator = accelerator or os.environ.get('DROVER_ACCELERATOR', 'tcg')
	defaults = {
		'memory': 64, 'vga': 'none', 'accelerator': accelerator, 'firmware': QBOOT,
		'kernel': str(build_dir() / 'tests/guest/micro/micro.elf'), 'kernel_args': words,
	}
	if accelerator == 'kvm':
		defaults['cpu_model'] = kvm_model()
	defaults.update(parameters)
	return {'name': name, 'parameters': {k: v for k, v in defaults.items() if v is not None}}


def linux(name, words='', **parameters):
	"""Definition of the Linux guest (guest/README.md)."""
	defaults = {
		'memory': 192, 'vga': 'none', 'accelerator': 'tcg',
		'kernel': str(guest_dir() / 'vmlinuz'), 'initrd': str(guest_dir() / 'initrd.zst'),
		'kernel_args': f'console=ttyS0 no_timer_check cryptomgr.notests quiet drover.name={name} {words}'
			.strip(),
	}
	defaults.update(parameters)
	return {'name': name, 'parameters': defaults}


slots_held = 0


def take_slot():
	for number in range(2):
		lock = open(f'/tmp/drover-test-linux-{number}.lock', 'w', encoding='utf-8')
		try:
			fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
			return lock
		except BlockingIOError:
			lock.close()
	return None


@contextlib.contextmanager
def linux_slot():
	"""At most two test runs have Linux guests on one machine at a time.  Who has a place keeps it:
	two runs that each wait for a second one would wait for ever."""
	global slots_held
	lock = take_slot() if slots_held == 0 else None
	while slots_held == 0 and not lock:
		time.sleep(1)
		lock = take_slot()
	slots_held += 1
	try:
		yield
	finally:
		slots_held -= 1
		if lock:
			lock.close()


class Host:
	"""One agent, its root, and all that it started."""

	def __init__(self, name='alpha', root=None, **config):
		self.name = name
		self.build = build_dir()
		self.root = root or new_root()
		self.etc, self.run = self.root / 'etc/drover', self.root / 'run/drover'
		self.lib, self.log = self.root / 'lib/drover', self.root / 'log/drover'
		self.host_dir = self.root / 'host'
		self.vms_dir = self.etc / 'vms'
		self.vms_dir.mkdir(parents=True)
		self.agent_process = None
		self.command = []  # put in front of the agent's, as `ip netns exec NAME`
		self.environment = {k: v for k, v in os.environ.items()
			if k not in ('DROVER_ROOT', 'NO_COLOR')}
		self.configure(**config)

	# ---- the agent ----

	def configure(self, **config):
		"""Writes drover.yaml: what every test needs, and what this one does."""
		timers = TIMERS | config.pop('timers', {})
		whole = {'node': self.name, 'host_dir': str(self.host_dir), 'log': {'level': 'debug'},
			'timers': timers} | config
		# JSON is YAML.
		(self.etc / 'drover.yaml').write_text(json.dumps(whole, indent=1), encoding='utf-8')

	def start_agent(self, ready=True):
		program = str(self.build / 'droverd')
		with open(self.root / 'droverd.out', 'ab') as out:
			popen = subprocess.Popen([*self.command, program, '--root', str(self.root)],
				stdin=subprocess.DEVNULL, stdout=out, stderr=out,
				start_new_session=True, env=self.environment)
		self.popen = popen
		self.agent_process = Process(popen.pid)
		if ready:
			self.wait(self.answers, 'the agent answers')
		return self

	def answers(self):
		if self.popen.poll() is not None:
			raise Failure(f'the agent ended with {self.popen.returncode}\n{self.dump()}')
		return self.drover('node').rc == 0

	def stop_agent(self):
		"""SIGTERM; returns the exit code."""
		self.agent_process.signal(signal.SIGTERM)
		return self.reap_agent()

	def reap_agent(self):
		code = self.popen.wait(DEADLINE)
		self.agent_process = None
		return code

	def kill_agent(self):
		self.agent_process.kill()
		return self.reap_agent()

	def restart_agent(self):
		self.stop_agent()
		self.start_agent()

	# ---- the command line ----

	def argv(self, *args):
		return [str(self.build / 'drover'), '--root', str(self.root), *args]

	def drover(self, *args, input=None, timeout=120, **options):
		"""Runs a command whatever comes of it."""
		if isinstance(input, str):
			input = input.encode()
		done = subprocess.run(self.argv(*args), input=input, capture_output=True,
			stdin=subprocess.DEVNULL if input is None else None,
			timeout=timeout, env=self.environment, check=False, **options)
		return Result(args, done)

	def cli(self, *args, rc=0, **options):
		"""Runs a command that has to end with `rc`."""
		result = self.drover(*args, **options)
		if result.rc != rc:
			raise Failure(f'{result}expected: {rc}\n{self.dump()}')
		return result

	def background(self, *args):
		"""A command that goes on while the test does; the caller waits for it."""
		return subprocess.Popen(self.argv(*args), stdin=subprocess.DEVNULL,
			stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment)

	def ended(self, popen, deadline=DEADLINE):
		"""The Result of a background command."""
		try:
			out, err = popen.communicate(timeout=deadline)
		except subprocess.TimeoutExpired:
			popen.kill()
			popen.communicate()
			raise Failure(f'{popen.args} does not end\n{self.dump()}') from None
		return Result(popen.args[3:], subprocess.CompletedProcess(popen.args, popen.returncode,
			out, err))

	def apply(self, *definitions, args=(), rc=0):
		text = '\n---\n'.join(json.dumps(d) if isinstance(d, dict) else d for d in definitions)
		return self.cli('apply', *args, '-', input=text, rc=rc)

	# ---- looking ----

	def vm(self, name):
		"""The status object, or None when there is no such VM."""
		result = self.drover('status', name, '--format', 'json')
		return result.json() if result.rc in (0, 1) or result.out else None

	def vms(self):
		return {vm['name']: vm for vm in self.cli('ls', '--format', 'json').json()}

	def state(self, name):
		vm = self.vm(name)
		return vm and vm['state']

	def events(self, name=None):
		args = [name] if name else []
		return self.cli('events', *args, '--lines', '10000', '--format', 'json').json()

	def event_names(self, name):
		return [event['event'] for event in self.events(name)]

	def states_seen(self, name):
		"""The states a VM went through, oldest first, out of its event log."""
		return [event['reason'].split(':')[0] for event in self.events(name)
			if event['event'] == 'state']

	def wait(self, fact, what, deadline=None):
		return wait(fact, what, deadline, self.dump)

	def wait_state(self, name, *states, deadline=None):
		"""Waits until the VM is in one of `states`; returns its status object."""
		def there():
			vm = self.vm(name)
			return vm if vm and vm['state'] in states else None
		return self.wait(there, f"VM '{name}' is {' or '.join(states)}", deadline)

	def wait_pid_change(self, name, pid, deadline=None):
		"""Waits until the VM runs as another process; returns its status object."""
		def there():
			vm = self.vm(name)
			return vm if vm and vm['state'] == 'running' and vm['pid'] not in (None, pid) else None
		return self.wait(there, f"VM '{name}' runs as another process than {pid}", deadline)

	def vm_log(self, name, which):
		return self.log / 'vms' / name / which

	def text(self, path):
		"""A log, any byte in it; empty when it is not there."""
		try:
			return pathlib.Path(path).read_bytes().decode(errors='replace')
		except FileNotFoundError:
			return ''

	def agent_log(self):
		return self.text(self.log / 'droverd.log') + self.text(self.root / 'droverd.out')

	def serial(self, name):
		return self.text(self.vm_log(name, 'serial.log'))

	# ---- processes ----

	@property
	def root_id(self):
		return self.text(self.lib / 'root-id').strip()

	def keeper(self, name):
		"""The keeper of a VM, or None."""
		tail = ['--root', str(self.root), name]
		found = processes(lambda args: args[0].endswith('drover-keeper') and args[1:] == tail)
		return found[0] if found else None

	def qemus(self, name=None):
		"""QEMUs of this root, proven by the token on their command lines."""
		root_id = self.root_id
		if not root_id:
			return []

		def ours(args):
			if not any(f'drover:{root_id}:' in arg for arg in args):
				return False
			return name is None or any(arg.split(',')[0] == name and previous == '-name'
				for previous, arg in zip(args, args[1:]))
		return processes(ours)

	def qemu(self, name):
		"""The one QEMU of a VM, or None.  Two would be the worst of all faults (I1)."""
		found = self.qemus(name)
		if len(found) > 1:
			raise Failure(f"VM '{name}' has {len(found)} processes: {found}\n{self.dump()}")
		return found[0] if found else None

	def all_processes(self):
		"""Everything that runs for this root: agents, keepers, their children, QEMUs."""
		root, me = str(self.root), os.getpid()
		rest = processes(lambda args: any(
			arg == root or arg.startswith(root + '/') or '=' + root in arg for arg in args))
		return [p for p in {*rest, *self.qemus()} if p.pid != me]

	def taps(self):
		"""Tap devices that say in their alias that they are of this root."""
		out = subprocess.run([*self.command, 'ip', '-j', '-d', 'link', 'show'],
			capture_output=True, check=False).stdout
		links = json.loads(out or b'[]')
		return [link['ifname'] for link in links
			if self.root_id and f'drover {self.root_id} ' in link.get('ifalias', '')]

	# ---- named steps (test builds) ----

	def hold_at(self, *names):
		"""Processes that come to one of these checkpoints stop themselves there."""
		self.run.mkdir(parents=True, exist_ok=True)
		text = ''.join(f'{name}\n' for name in names)
		path = self.run / 'checkpoint'
		if text:
			path.with_suffix('.new').write_text(text, encoding='utf-8')
			path.with_suffix('.new').rename(path)
		else:
			path.unlink(missing_ok=True)

	def held_now(self, name):
		"""The process that is held there, or None."""
		for line in reversed(self.text(self.run / 'checkpoint.reached').splitlines()):
			word, _, pid = line.partition(' ')
			if word != name or not pid.isdigit():
				continue
			with contextlib.suppress(ProcessLookupError, OSError):
				process = Process(int(pid))
				if str(self.root) in process.args and process.stopped():
					return process
		return None

	def held(self, name, deadline=None):
		"""Waits until a process is held there; returns it."""
		return self.wait(lambda: self.held_now(name), f"a process comes to '{name}'", deadline)

	# ---- the end ----

	def dump(self):
		"""All that helps to understand a failure."""
		parts = []

		def part(title, text, lines=40):
			tail = '\n'.join(line[:600] for line in text.splitlines()[-lines:])
			parts.append(f'--- {title} ---\n{tail}')

		try:
			ls = self.drover('ls', '--format', 'json', timeout=10)
			part('drover ls', ls.out + ls.err, 200)
		except subprocess.TimeoutExpired:
			part('drover ls', 'no answer')
		part('processes', '\n'.join(map(repr, self.all_processes())))
		part('droverd', self.agent_log())
		logs = self.log / 'vms'
		for directory in sorted(logs.iterdir()) if logs.is_dir() else []:
			for name in ('keeper.log', 'events.jsonl', 'qemu.log', 'serial.log'):
				part(f'{directory.name}/{name}', self.text(directory / name),
					12 if name != 'keeper.log' else 40)
		return '\n'.join(parts)

	def stop_vms(self):
		"""Ends every VM by command, as a user would."""
		for vm in self.vms().values():
			if vm['state'] == 'off' or vm['wish'] in ('hands-off', 'elsewhere', 'off', 'node-stopped'):
				continue
			self.drover('kill', vm['name'])

	def left(self):
		"""What is on the host although its VM ended (I9): should be nothing."""
		found = [repr(p) for p in self.all_processes()
			if p != self.agent_process and '--probe' not in p.args]
		found += [f'tap {tap}' for tap in self.taps()]
		vms = self.run / 'vms'
		found += [str(path) for path in vms.rglob('*') if not path.is_dir()] if vms.is_dir() else []
		bookings = self.host_dir / 'bookings'
		found += [str(path) for path in bookings.iterdir()] if bookings.is_dir() else []
		return found

	def check_nothing_left(self):
		self.stop_vms()
		held = {vm['name'] for vm in self.vms().values() if vm['pid']}
		if held:  # hands off, so no command ends them
			return
		try:
			self.wait(lambda: not self.left(), 'nothing of ended VMs is left')
		except Failure as failure:
			raise Failure(f'left: {self.left()}\n{failure}') from None

	def destroy(self):
		"""Ends all processes of this root.  Stopped ones (SIGSTOP) too."""
		def none_left():
			for process in self.all_processes():
				process.signal(signal.SIGKILL)
			return not self.all_processes()
		wait(none_left, 'all processes end')
		if self.agent_process:
			self.reap_agent()

	def keep_logs(self, where):
		shutil.rmtree(where, ignore_errors=True)
		where.mkdir(parents=True)
		for path in (self.log, self.run, self.etc, self.root / 'droverd.out'):
			with contextlib.suppress(OSError, shutil.Error):
				if path.is_dir():
					shutil.copytree(path, where / path.parent.name,
						ignore=shutil.ignore_patterns('*.sock'))
				else:
					shutil.copy(path, where)

	def remove(self):
		shutil.rmtree(self.root, ignore_errors=True)


class Ticks:
	"""Follows the counting of a micro guest in its console's log, from outside of everything that
	a test may kill.  check() proves that not one tick is missing or late: the guest was never
	paused, started anew, or damaged."""

	def __init__(self, host, name, longest=2.0):
		self.host, self.name, self.longest = host, name, longest
		self.path = host.vm_log(name, 'serial.log')
		self.seen = []  # (time of arrival, seq, bad)
		self.looked, self.awake = time.monotonic(), 0.0
		self.faults = []
		self.rest = b''
		self.done = threading.Event()
		self.file = open(self.path, 'rb')
		self.file.seek(0, os.SEEK_END)
		self.thread = threading.Thread(target=self.follow, daemon=True)
		self.thread.start()
		self.more(3)

	def follow(self):
		while not self.done.wait(0.005):
			self.read()
		self.read()

	def read(self):
		data = self.rest + self.file.read()
		lines = data.split(b'\n')
		self.rest = lines.pop()
		# A machine that is too busy for us is so for the guest: silence is what we were awake for.
		now = time.monotonic()
		self.awake += min(now - self.looked, 0.05)
		self.looked = now
		for line in lines:
			words = line.split()
			if len(words) == 5 and words[0] == b'C':
				self.take(self.awake, int(words[1], 16), int(words[3], 16))
			elif self.seen:
				self.faults.append(f'{line!r} after tick {self.seen[-1][1]}')

	def take(self, now, seq, bad):
		if self.seen and seq != self.seen[-1][1] + 1:
			self.faults.append(f'tick {seq} follows {self.seen[-1][1]}')
		if bad:
			self.faults.append(f'{bad} damaged pages at tick {seq}')
		if self.seen and now - self.seen[-1][0] > self.longest:
			self.faults.append(f'{now - self.seen[-1][0]:.1f} s of silence before tick {seq}')
		self.seen.append((now, seq, bad))

	def more(self, count=20):
		"""Waits for so many more ticks."""
		goal = len(self.seen) + count
		self.host.wait(lambda: len(self.seen) >= goal, f"guest '{self.name}' counts on")

	def check(self, count=20):
		"""The guest counts on, and did so without a fault since this was made."""
		self.more(count)
		self.close()
		if self.faults:
			raise Failure(f"guest '{self.name}': {'; '.join(self.faults[:5])}\n{self.host.dump()}")

	def close(self):
		self.done.set()
		self.thread.join()

	def __enter__(self):
		return self

	def __exit__(self, *_):
		self.close()


class Console:
	"""A connection to the console of a VM, as drover console makes one."""

	def __init__(self, host, name):
		answer = ask(host, 'console', vm=name)['return']
		self.socket = socket.socket(socket.AF_UNIX)
		self.socket.connect(answer['socket'])
		self.socket.setblocking(False)
		self.text = b''

	def read(self):
		with contextlib.suppress(BlockingIOError):
			while data := self.socket.recv(65536):
				self.text += data
		return self.text

	def send(self, data):
		self.socket.sendall(data)

	def close(self):
		self.socket.close()


def ask(host, command, **arguments):
	"""One question at the agent's control socket, as docs/PROTOCOL.md has it."""
	with socket.socket(socket.AF_UNIX) as sock:
		sock.settimeout(DEADLINE)
		sock.connect(str(host.run / 'control.sock'))
		sock.sendall(json.dumps({'execute': command, 'arguments': arguments, 'id': 1}).encode()
			+ b'\n')
		with sock.makefile('rb') as lines:
			for line in lines:
				answer = json.loads(line)
				if answer.get('id') == 1 and ('return' in answer or 'error' in answer):
					return answer
	raise Failure(f"the agent hung up on '{command}'")
