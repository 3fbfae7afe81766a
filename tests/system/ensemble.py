# SPDX-License-Identifier: Apache-2.0
"""A real ZooKeeper ensemble: each server in a network namespace of its own, joined by a bridge in
another one, and a link from there to us.  Any link can be cut."""
import contextlib
import ctypes
import itertools
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from drover import wait

JARS = ['/usr/share/java/zookeeper.jar', '/usr/share/java/slf4j-nop.jar']
PORT = 2181
DEADLINE = 90 * float(os.environ.get('DROVER_TEST_SCALE', '1'))
numbers = itertools.count()


def ip(*args, namespace=None):
	where = ['-n', namespace] if namespace else []
	subprocess.run(['ip', *where, *args], check=True, stdin=subprocess.DEVNULL)


def die_with_us():
	ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def read_znode(host, path):
	"""By a session of its own; None while there is no such znode.  Numbers are of the protocol."""
	with socket.create_connection((host, PORT), timeout=5) as server, server.makefile('rb') as answers:
		def ask(request):
			server.sendall(struct.pack('>i', len(request)) + request)
			[length] = struct.unpack('>i', answers.read(4))
			return answers.read(length)
		ask(struct.pack('>iqiqi16s', 0, 0, 5000, 0, 16, b''))
		name = path.encode()
		answer = ask(struct.pack(f'>iii{len(name)}s?', 1, 4, len(name), name, False))
		_, _, error, length = struct.unpack_from('>iqii', answer + bytes(4))
		server.sendall(struct.pack('>iii', 8, 2, -11))
		return answer[20:20 + length] if error == 0 else None


class Switch:
	"""A bridge in a namespace of its own, with us on one port as 198.18.N.254."""

	def __init__(self):
		self.tag = f'dz{os.getpid() % 100000:05d}{next(numbers) % 10}'
		self.name = f'{self.tag}sw'
		self.net = self.free_net()
		self.namespaces = []
		ip('netns', 'add', self.name)
		try:
			ip('link', 'add', 'br0', 'type', 'bridge', namespace=self.name)
			ip('link', 'set', 'br0', 'up', namespace=self.name)
			ip('link', 'add', f'{self.tag}us', 'type', 'veth', 'peer', 'name', 'us',
				'netns', self.name)
			ip('addr', 'add', f'{self.net}.254/24', 'dev', f'{self.tag}us')
			ip('link', 'set', f'{self.tag}us', 'up')
			ip('link', 'set', 'us', 'master', 'br0', 'up', namespace=self.name)
		except BaseException:
			self.remove()
			raise

	@staticmethod
	def free_net():
		"""Of the range for benchmarks, one that no other test run has."""
		used = subprocess.run(['ip', '-4', '-o', 'addr'], check=True, capture_output=True,
			text=True).stdout
		start = os.getpid() % 250
		return next(net for net in (f'198.18.{(start + i) % 250}' for i in range(250))
			if f' {net}.' not in used)

	def port(self, name, host):
		"""A namespace on the bridge with this address; returns its name."""
		namespace = f'{self.tag}{name}'
		ip('netns', 'add', namespace)
		self.namespaces.append(namespace)
		ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace,
			namespace=self.name)
		ip('link', 'set', name, 'master', 'br0', 'up', namespace=self.name)
		ip('addr', 'add', f'{self.net}.{host}/24', 'dev', 'eth0', namespace=namespace)
		ip('link', 'set', 'lo', 'up', namespace=namespace)
		ip('link', 'set', 'eth0', 'up', namespace=namespace)
		return namespace

	def cut(self, port='us'):
		ip('link', 'set', port, 'down', namespace=self.name)

	def mend(self, port='us'):
		ip('link', 'set', port, 'up', namespace=self.name)

	def remove(self):
		for namespace in [*self.namespaces, self.name]:
			subprocess.run(['ip', 'netns', 'del', namespace], check=False,
				stdin=subprocess.DEVNULL)
		subprocess.run(['ip', 'link', 'del', f'{self.tag}us'], check=False,
			stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class ZooKeeper:
	"""Servers are 0, 1, 2...  Used as a context, or start() and stop()."""

	def __init__(self, servers=3, tick=500):
		self.count, self.tick = servers, tick
		self.processes = [None] * servers
		self.namespaces = []
		self.dir = self.switch = None

	def __enter__(self):
		return self.start()

	def __exit__(self, *_):
		self.stop()

	def start(self):
		self.dir = pathlib.Path(tempfile.mkdtemp(prefix='drover-zookeeper-'))
		try:
			self.switch = Switch()
			for i in range(self.count):
				self.namespaces.append(self.switch.port(f'z{i}', i + 1))
				self.configure(i)
				self.run(i)
			self.settle()
		except BaseException:
			self.stop()
			raise
		return self

	def configure(self, i):
		data = self.dir / str(i)
		data.mkdir()
		(data / 'myid').write_text(f'{i + 1}\n', encoding='utf-8')
		lines = [f'tickTime={self.tick}', 'initLimit=40', 'syncLimit=10', 'cnxTimeout=1000',
			f'dataDir={data}', f'clientPort={PORT}', 'admin.enableServer=false', 'forceSync=no',
			'maxClientCnxns=0', '4lw.commands.whitelist=*', f'minSessionTimeout={2 * self.tick}',
			'maxSessionTimeout=60000']
		if self.count > 1:
			lines += [f'server.{k + 1}={self.host(k)}:2888:3888' for k in range(self.count)]
		(data / 'zoo.cfg').write_text('\n'.join(lines) + '\n', encoding='utf-8')

	def host(self, i):
		return f'{self.switch.net}.{i + 1}'

	@property
	def servers(self):
		return ','.join(f'{self.host(i)}:{PORT}' for i in range(self.count))

	@property
	def address(self):
		return self.address_of('/drover')

	def address_of(self, chroot):
		"""An address for the store; each chroot is a cluster of its own."""
		return f'zookeeper:{self.servers}{chroot}?tick={self.tick}'

	def run(self, i):
		"""Starts a server, with the data that it had."""
		with open(self.dir / str(i) / 'out', 'ab') as out:
			self.processes[i] = subprocess.Popen(
				['ip', 'netns', 'exec', self.namespaces[i], 'java', '-Xmx128m',
				'-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-cp', ':'.join(JARS),
				'org.apache.zookeeper.server.quorum.QuorumPeerMain',
				str(self.dir / str(i) / 'zoo.cfg')],
				stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_us)

	def kill(self, i, number=signal.SIGKILL):
		self.processes[i].send_signal(number)
		if number == signal.SIGKILL:
			self.processes[i].wait()
			self.processes[i] = None

	def mode(self, i):
		"""'leader', 'follower', 'standalone', or None."""
		with contextlib.suppress(OSError), \
				socket.create_connection((self.host(i), PORT), timeout=2) as server:
			server.sendall(b'srvr')
			for line in iter(lambda f=server.makefile(): f.readline(), ''):
				if line.startswith('Mode: '):
					return line.split()[1]
		return None

	def leader(self):
		"""Which one leads; waits until one does."""
		def known():
			return next((str(i) for i in range(self.count)
				if self.processes[i] and self.mode(i) in ('leader', 'standalone')), None)
		return int(self.wait(known, 'a server of ZooKeeper leads'))

	def settle(self):
		"""All that run serve."""
		self.wait(lambda: all(self.mode(i) for i in range(self.count) if self.processes[i]),
			'all servers of ZooKeeper serve')

	def read(self, path):
		"""The value of a znode, asked of any server that answers."""
		def answered():
			for i in range(self.count):
				with contextlib.suppress(OSError, struct.error):
					if self.processes[i] and (value := read_znode(self.host(i), path)) is not None:
						return value
			return None
		return self.wait(answered, f'ZooKeeper tells {path}')

	def heal(self):
		"""All servers and links as at the beginning."""
		for i in range(self.count):
			self.switch.mend(f'z{i}')
			if not self.processes[i]:
				self.run(i)
			else:
				self.kill(i, signal.SIGCONT)
		self.switch.mend()
		self.settle()

	def wait(self, fact, what):
		return wait(fact, what, DEADLINE, self.dump)

	def dump(self):
		outs = [(self.dir / str(i) / 'out').read_text(errors='replace')[-2000:]
			for i in range(self.count) if (self.dir / str(i) / 'out').exists()]
		return f'modes: {[self.mode(i) for i in range(self.count)]}\n' + '\n'.join(outs)

	def stop(self):
		for i, process in enumerate(self.processes):
			if process:
				self.kill(i)
		if self.switch:
			self.switch.remove()
		if self.dir:
			shutil.rmtree(self.dir, ignore_errors=True)
