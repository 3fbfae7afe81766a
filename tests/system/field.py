# SPDX-License-Identifier: Apache-2.0
"""Where the hosts of a cluster stand: all on this machine's loopback with a file as their store, or each
in a network of its own, joined by a bridge, with that file or with real servers of ZooKeeper or Consul.
There any way can be cut, between two hosts, to the store or to all, and any server of the store be killed."""
import itertools
import json
import signal
import socket
import sqlite3

from consul import Consul
from ensemble import Switch, ZooKeeper, ip

clusters, places = itertools.count(), itertools.count(101)  # addresses of servers are 1, 2, 3
# Nobody has it: what is sent there is lost, and no one says so.
NOBODY = '02:00:00:00:00:01'


def free_port():
	with socket.socket() as probe:
		probe.bind(('127.0.0.1', 0))
		return probe.getsockname()[1]


class Loopback:
	"""Nothing can be cut."""
	ways = ()
	servers = None

	def __init__(self, directory):
		self.path = f'{directory}/store.db'

	def config(self, _):
		return {'store': f'local:{self.path}', 'cluster': {'address': '127.0.0.1', 'port': free_port()}}

	def command(self, _):
		return []

	def read(self, key):
		"""A record, as it is in the store."""
		db = sqlite3.connect(self.path, timeout=20)
		try:
			[[value]] = db.execute('SELECT value FROM keys WHERE key = ?', (key,))
			return json.loads(value)
		finally:
			db.close()

	def mend(self):
		pass

	def close(self):
		pass


class Field:
	"""Networks of these hosts.  `servers` are running ones of the store, or None: then it is a file."""

	def __init__(self, directory, names, servers=None):
		self.file, self.servers = Loopback(directory), servers
		self.switch = servers.switch if servers else Switch()
		self.cluster = f'field-{next(clusters)}'
		self.places, self.namespaces, self.lost = {}, {}, set()
		try:
			for name in names:
				self.places[name] = place = next(places)
				self.namespaces[name] = self.switch.port(f'h{place}', place)
		except BaseException:
			self.close()
			raise

	@property
	def ways(self):
		return ('link', 'S-store', 'T-store', 'S-both', 'T-both') if self.servers else ('link',)

	def address(self, name):
		return f'{self.switch.net}.{self.places[name]}'

	def config(self, name):
		store = f'local:{self.file.path}'
		if isinstance(self.servers, ZooKeeper):
			store = self.servers.address_of(f'/drover/{self.cluster}')
		elif self.servers:
			store = self.servers.address(self.cluster)
		return {'store': store, 'cluster': {'address': self.address(name)}}

	def command(self, name):
		return ['ip', 'netns', 'exec', self.namespaces[name]]

	def read(self, key):
		if not self.servers:
			return self.file.read(key)
		if isinstance(self.servers, ZooKeeper):
			head, _, tail = key.rpartition('/')
			value = self.servers.read(f'/drover/{self.cluster}{head}/={tail}')
			return json.loads(value.partition(b'\n')[0])  # the mark of its key comes behind it
		return json.loads(self.servers.read(f'drover/{self.cluster}{key}'))

	# ---- ways ----

	def lose(self, name, address):
		"""What the host sends there is lost from now on, without a word."""
		ip('neigh', 'replace', address, 'lladdr', NOBODY, 'dev', 'eth0', 'nud', 'permanent',
			namespace=self.namespaces[name])
		self.lost.add((name, address))

	def cut_link(self, one, other):
		self.lose(one, self.address(other))
		self.lose(other, self.address(one))

	def cut_store(self, name):
		for i in range(self.servers.count):
			self.lose(name, self.servers.host(i))

	def cut(self, way, source, target):
		"""One of `ways`, between the hosts with these names."""
		role, _, what = way.rpartition('-')
		if what in ('link', 'both'):
			self.cut_link(source, target)
		if what in ('store', 'both'):
			self.cut_store(source if role == 'S' else target)

	def mend(self):
		for name, address in self.lost:
			ip('neigh', 'del', address, 'dev', 'eth0', namespace=self.namespaces[name])
		self.lost.clear()

	# ---- servers ----

	def strike_leader(self, number=signal.SIGKILL):
		"""The server that leads; its number."""
		leader = self.servers.leader()
		self.servers.kill(leader, number)
		return leader

	def close(self):
		"""Networks on a bridge of the servers' go with that."""
		if not self.servers:
			self.switch.remove()
