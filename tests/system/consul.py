# SPDX-License-Identifier: Apache-2.0
"""Real Consul servers with ACLs, each in a network namespace of its own.  Any link can be cut."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request

from drover import wait
from ensemble import Switch, die_with_us

PROGRAM = os.environ.get('DROVER_CONSUL', '')
MASTER = '0d1e2f3a-1111-2222-3333-444455556666'
DEADLINE = 90 * float(os.environ.get('DROVER_TEST_SCALE', '1'))
# What an agent of ours needs, and nothing else.
POLICY = '''
key_prefix "drover/" { policy = "write" }
node "drover-store" { policy = "write" }
session "drover-store" { policy = "write" }
'''


def available():
	return os.access(PROGRAM, os.X_OK)


class Consul:
	"""Servers are 0, 1, 2...  Used as a context."""

	def __init__(self, servers=3):
		self.count = servers
		self.processes = [None] * servers
		self.namespaces = []
		self.dir = self.switch = None

	def __enter__(self):
		self.dir = pathlib.Path(tempfile.mkdtemp(prefix='drover-consul-'))
		try:
			self.switch = Switch()
			for i in range(self.count):
				self.namespaces.append(self.switch.port(f'c{i}', i + 1))
				self.configure(i)
				self.run(i)
			self.settle()
			self.token_file = self.make_token()
		except BaseException:
			self.stop()
			raise
		return self

	def __exit__(self, *_):
		self.stop()

	def configure(self, i):
		(self.dir / str(i)).mkdir()
		config = {'server': True, 'bootstrap_expect': self.count, 'node_name': f'n{i}',
			'data_dir': str(self.dir / str(i) / 'data'), 'bind_addr': self.host(i),
			'client_addr': self.host(i), 'retry_join': [self.host(k) for k in range(self.count)],
			'retry_interval': '1s', 'session_ttl_min': '1s', 'leave_on_terminate': False,
			'performance': {'raft_multiplier': 2},
			'autopilot': {'server_stabilization_time': '1s', 'cleanup_dead_servers': False},
			'ports': {'dns': -1, 'serf_wan': -1},
			'log_level': 'warn', 'acl': {'enabled': True, 'default_policy': 'deny',
			'tokens': {'master': MASTER, 'agent': MASTER}}}
		(self.dir / f'{i}.json').write_text(json.dumps(config), encoding='utf-8')

	def host(self, i):
		return f'{self.switch.net}.{i + 1}'

	@property
	def servers(self):
		return ','.join(f'{self.host(i)}:8500' for i in range(self.count))

	def address(self, prefix, token_file=None):
		"""For the store; each prefix is a cluster of its own."""
		return f'consul:http://{self.servers}/drover/{prefix}?token-file={token_file or self.token_file}'

	def run(self, i):
		"""Starts a server, with the data that it had."""
		with open(self.dir / str(i) / 'out', 'ab') as out:
			self.processes[i] = subprocess.Popen(
				['ip', 'netns', 'exec', self.namespaces[i], PROGRAM, 'agent', '-config-file', str(self.dir / f'{i}.json')],
				stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_us)

	def kill(self, i, number=signal.SIGKILL):
		self.processes[i].send_signal(number)
		if number == signal.SIGKILL:
			self.processes[i].wait()
			self.processes[i] = None

	def leave(self, i):
		"""It goes as one does that is shut down in order: the others forget its node."""
		self.ask(i, 'PUT', 'agent/leave')
		self.processes[i].wait(DEADLINE)
		self.processes[i] = None

	def heal(self):
		"""All servers serve again, whatever was done to them."""
		for i in range(self.count):
			self.switch.mend(f'c{i}')
			if not self.processes[i]:
				self.run(i)
			else:
				self.kill(i, signal.SIGCONT)
		self.switch.mend()
		self.settle()

	def ask(self, i, method, path, body=None):
		"""None while it does not serve."""
		answer = self.ask_bytes(i, method, path, body)
		try:
			return answer and json.loads(answer)
		except ValueError:
			return None

	def ask_bytes(self, i, method, path, body=None):
		data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
		request = urllib.request.Request(f'http://{self.host(i)}:8500/v1/{path}', data,
			{'X-Consul-Token': MASTER}, method=method)
		try:
			with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request,
					timeout=5) as answer:
				return answer.read()
		except (OSError, urllib.error.URLError):
			return None

	def alive(self):
		return [i for i in range(self.count) if self.processes[i]]

	def leader_of(self, servers):
		"""As these see it, or None."""
		seen = {self.ask(i, 'GET', 'status/leader') for i in servers}
		return next((i for i in servers if seen == {f'{self.host(i)}:8300'}), None)

	def leader(self):
		"""Which one leads, by whoever of them answers; waits until one does."""
		def known():
			seen = (self.ask(i, 'GET', 'status/leader') for i in self.alive())
			return next((str(i) for one in seen for i in self.alive() if one == f'{self.host(i)}:8300'), None)
		return int(wait(known, 'a server of Consul leads', DEADLINE, self.dump))

	def read(self, key):
		"""The value of a key."""
		def answered():
			answers = (self.ask_bytes(i, 'GET', f'kv/{key}?raw&consistent') for i in self.alive())
			return next((value for value in answers if value), None)
		return wait(answered, f'Consul tells {key}', DEADLINE, self.dump)

	def voters(self, servers):
		"""All servers have a vote, also one that left and came back (as long as none is away)."""
		if len(servers) < self.count:
			return True
		raft = self.ask(servers[0], 'GET', 'operator/raft/configuration') or {'Servers': []}
		return [one['Voter'] for one in raft['Servers']] == [True] * self.count

	def settle(self, without=None):
		"""Waits until all that live, or all but one, serve; returns their leader."""
		servers = [i for i in self.alive() if i != without]

		def serves():
			return self.voters(servers) and all(self.ask(i, 'PUT', 'kv/settle', b'x') for i in servers) and \
				self.leader_of(servers) is not None
		wait(serves, 'Consul serves', DEADLINE, self.dump)
		return self.leader_of(servers)

	def make_token(self):
		def made():
			self.ask(0, 'PUT', 'acl/policy', {'Name': 'drover', 'Rules': POLICY})
			return self.ask(0, 'PUT', 'acl/token', {'Policies': [{'Name': 'drover'}]})
		token = wait(made, 'a token', DEADLINE)['SecretID']
		return self.write_token('token', token)

	def write_token(self, name, token):
		path = self.dir / name
		path.touch(mode=0o600)
		path.write_text(token, encoding='utf-8')
		return path

	def dump(self):
		return '\n'.join(f'-- {path}\n{path.read_text(errors="replace")[-2000:]}'
			for path in sorted(self.dir.glob('*/out')))

	def stop(self):
		for i in self.alive():
			self.kill(i)
		if self.switch:
			self.switch.remove()
		shutil.rmtree(self.dir, ignore_errors=True)
