# SPDX-License-Identifier: Apache-2.0
"""The form of the records: an agent that does not know it reads none of them wrong, and once all can,
one of them brings the records to the next form while guests run on.  The second form is one of test
builds (src/node/schema.c)."""
import json
import sqlite3

import pytest

import consul
from drover import Ticks, micro
from ensemble import ZooKeeper


def schema(store, version=None):
	"""What stands in /drover/schema of an embedded store, after writing it when one is given."""
	with sqlite3.connect(store, timeout=30) as db:
		if version is not None:
			db.execute("UPDATE keys SET value = ?, version = version + 1000000 "
				"WHERE key = '/drover/schema'", (f'{{"v":1,"version":{version}}}',))
		return db.execute("SELECT value FROM keys WHERE key = '/drover/schema'").fetchone()


def records(store, prefix):
	with sqlite3.connect(store, timeout=30) as db:
		return {key: json.loads(value) for key, value in
			db.execute('SELECT key, value FROM keys WHERE key >= ? AND key < ?', (prefix, prefix + '\x7f'))}


def store_state(host):
	return host.cli('node', '--format', 'json').json()['store_state']


@pytest.mark.asan
def test_an_agent_of_an_older_form_stays_outside_and_says_so(new_host):
	host = new_host().start_agent()
	host.wait(lambda: store_state(host) == 'connected', 'the agent has joined')
	store = host.lib / 'store.db'
	assert schema(store) == ('{"v":1,"version":1}',)
	host.stop_agent()
	schema(store, 2)
	host.start_agent()
	host.wait(lambda: 'schema 2' in store_state(host), 'the agent says why it has not joined')
	result = host.drover('apply', '-', '--timeout', '1s', input=json.dumps(micro('m1')))
	assert not host.qemus('m1'), result
	schema(store, 1)
	host.wait(lambda: store_state(host) == 'connected', 'it joins by itself once it can')


# ---- the next form ----

def told(host):
	return host.cli('cluster', 'status', '--format', 'json').json()['schema']


def renew(host):
	"""Another version of the agent, which knows the second form."""
	host.environment['DROVER_TEST_FORM'] = '2'
	host.stop_agent()
	host.start_agent()


def has_form(host, version):
	host.wait(lambda: store_state(host) == 'connected' and told(host) ==
		{'version': version, 'newest': 2, 'trouble': None}, f'{host.name} works with form {version}')


class Pair:
	"""Two agents of one cluster that know the first form only, and a guest on one of them."""

	def __init__(self, new_host, store, session='5s'):
		self.hosts = [new_host(name, store=store, timers={'session': session}) for name in ('alpha', 'beta')]
		for host in self.hosts:
			host.start_agent()
			host.wait(lambda h=host: store_state(h) == 'connected', 'it has joined')
		self.alpha, self.beta = self.hosts
		# Something to do, for more than one write: they run nowhere.
		for first in range(0, 40, 20):
			self.alpha.apply(*[micro(f'd{i}', kvm_host='') for i in range(first, first + 20)])
		self.alpha.apply(micro('m1', kvm_host='alpha'))
		self.pid = self.alpha.wait_state('m1', 'running')['pid']

	def check_after(self):
		"""All work with the new form, and what the records say is what they said before."""
		for host in self.hosts:
			has_form(host, 2)
		assert len(self.alpha.vms()) == 41
		assert self.alpha.wait_state('m1', 'running')['pid'] == self.pid
		# The owner record is written in the new form.
		self.alpha.cli('pause', 'm1')
		self.alpha.cli('resume', 'm1')
		self.beta.apply(micro('m2', kvm_host='beta'))
		self.beta.wait_state('m2', 'running')


@pytest.fixture
def local(tmp_path):
	return f'local:{tmp_path}/store.db'


@pytest.fixture
def zookeeper():
	with ZooKeeper() as servers:
		yield servers.address_of('/drover/test-schema')


@pytest.fixture
def consuls():
	if not consul.available():
		pytest.skip('no Consul: tests/consul/fetch DIR')
	with consul.Consul() as servers:
		yield servers.address('test-schema')


@pytest.mark.parametrize('kind', ['local', pytest.param('zookeeper', marks=pytest.mark.slow),
	pytest.param('consuls', marks=pytest.mark.slow)])
def test_pvc_S7_the_last_agent_that_can_brings_the_records_to_the_next_form(new_host, request, kind):
	pair = Pair(new_host, request.getfixturevalue(kind), '8s')
	with Ticks(pair.alpha, 'm1') as ticks:
		renew(pair.alpha)
		pair.alpha.wait(lambda: "node 'beta' knows none newer" in (told(pair.alpha)['trouble'] or ''),
			'it says who holds it up')
		assert told(pair.alpha)['version'] == 1
		renew(pair.beta)
		agents = [host.agent_process for host in pair.hosts]
		pair.check_after()
		# Each started anew in place: no watch and no cache of the former form is left.
		assert all(agent.alive for agent in agents)
		ticks.check()
	assert sum(event['event'] == 'schema-upgraded' for host in pair.hosts
		for event in host.events()) == 1


def test_each_record_gets_its_new_name_and_value(new_host, local, tmp_path):
	pair = Pair(new_host, local)
	store = tmp_path / 'store.db'
	pair.alpha.wait(lambda: '/drover/vms/m1/state' in records(store, '/drover/vms/'), 'its state is told')
	with sqlite3.connect(store, timeout=30) as db:
		db.executemany('INSERT INTO keys (key, version, value) VALUES (?, 1, ?)',
			[(f'/drover/test/old/{i}/a', f'{{"n":{i}}}') for i in range(100)])
	for host in pair.hosts:
		renew(host)
	pair.check_after()
	assert schema(store) == ('{"v":1,"version":2}',)
	assert not records(store, '/drover/test/old/')
	assert records(store, '/drover/test/new/') == {f'/drover/test/new/{i}/a': {'n': i} for i in range(100)}
	definitions = {key: value for key, value in records(store, '/drover/vms/').items()
		if key.endswith('/definition')}
	assert len(definitions) == 42
	assert all(value['form'] == 2 for key, value in definitions.items() if '/m2/' not in key)
	assert '/drover/vms/m1/said' in records(store, '/drover/vms/')
	pair.alpha.wait(lambda: not records(store, '/drover/schema-lock'), 'nobody has the lock')


STEPS = [f'agent.upgrade.{step}' for step in ('locked', 'begun', 'fenced', 'batch', 'finish')]


@pytest.mark.slow
@pytest.mark.parametrize('step', STEPS)
def test_pvc_S6_who_dies_in_the_middle_is_followed_by_another(new_host, local, step):
	pair = Pair(new_host, local)
	with Ticks(pair.alpha, 'm1') as ticks:
		renew(pair.alpha)
		for host in pair.hosts:
			host.hold_at(step)
		pair.beta.environment['DROVER_TEST_FORM'] = '2'
		pair.beta.stop_agent()
		pair.beta.start_agent(ready=False)
		pair.alpha.wait(lambda: any(host.held_now(step) for host in pair.hosts), f'one comes to {step}')
		[victim] = [host for host in pair.hosts if host.held_now(step)]
		for host in pair.hosts:
			host.hold_at()
		victim.kill_agent()
		other = pair.beta if victim is pair.alpha else pair.alpha
		has_form(other, 2)
		victim.start_agent()
		pair.check_after()
		ticks.check()


def test_nobody_writes_in_the_former_form_meanwhile(new_host, local, tmp_path):
	pair = Pair(new_host, local)
	renew(pair.alpha)
	pair.beta.hold_at('agent.upgrade.batch')
	pair.alpha.hold_at('agent.upgrade.batch')
	pair.beta.environment['DROVER_TEST_FORM'] = '2'
	pair.beta.stop_agent()
	pair.beta.start_agent(ready=False)
	pair.alpha.wait(lambda: any(host.held_now('agent.upgrade.batch') for host in pair.hosts), 'it is half done')
	[worker] = [host for host in pair.hosts if host.held_now('agent.upgrade.batch')]
	other = pair.beta if worker is pair.alpha else pair.alpha
	for host in pair.hosts:
		host.hold_at()
	other.wait(lambda: 'being brought from schema 1 to 2' in other.drover('node').out, 'the other one knows')
	result = other.drover('apply', '-', '--timeout', '1s', input=json.dumps(micro('late')))
	assert result.rc == 75 and 'being brought' in result.err, result
	assert '/drover/vms/late/definition' not in records(tmp_path / 'store.db', '/drover/vms/')
	worker.held('agent.upgrade.batch').signal(18)  # SIGCONT
	pair.check_after()
