# SPDX-License-Identifier: Apache-2.0
"""Agents whose records are in a real ZooKeeper ensemble of three servers: what they do when a
server dies, when none has a majority, and when they are cut off."""
import itertools
import stat

import pytest

from drover import Ticks, micro
from ensemble import ZooKeeper

# Long enough for a busy machine to elect a leader in, short enough to wait for its end.
SESSION = '8s'
numbers = itertools.count()


@pytest.fixture(scope='module')
def ensemble():
	with ZooKeeper() as servers:
		yield servers


@pytest.fixture
def zookeeper(ensemble):
	"""The ensemble, whole again after each test."""
	yield ensemble
	ensemble.heal()


@pytest.fixture
def address(zookeeper):
	"""A cluster of one's own in it."""
	return zookeeper.address_of(f'/drover/test-{next(numbers)}')


@pytest.fixture
def host(new_host, address):
	return new_host(store=address, timers={'session': SESSION}).start_agent()


def events(host, name):
	return [event for event in host.events() if event['event'] == name]


def record(host, name):
	"""Writes to the store: the record of the VM's order."""
	host.cli('stop', name)
	host.wait_state(name, 'off')
	host.cli('start', name)
	return host.wait_state(name, 'running')


def test_a_vm_has_its_records_in_zookeeper(host):
	host.apply(micro('m1'))
	with Ticks(host, 'm1') as ticks:
		session = host.run / 'session'
		assert stat.S_IMODE(session.stat().st_mode) == 0o600, 'it holds a password'
		password = session.read_text(encoding='utf-8').partition(':')[2]
		for path in host.log.rglob('*'):
			assert path.is_dir() or password not in path.read_text(errors='replace'), path
		host.restart_agent()
		host.wait_state('m1', 'running')
		ticks.check()
	record(host, 'm1')
	host.cli('stop', 'm1')
	host.cli('rm', 'm1')
	host.wait(lambda: host.vm('m1') is None, 'its records are gone')


def test_a_session_is_resumed_by_an_agent_that_comes_back_in_time(host):
	host.apply(micro('m1'))
	id = (host.run / 'session').read_text(encoding='utf-8')
	with Ticks(host, 'm1') as ticks:
		host.kill_agent()
		host.start_agent()
		host.wait_state('m1', 'running')
		assert (host.run / 'session').read_text(encoding='utf-8') == id
		ticks.check()
	assert not events(host, 'session-lost')


def test_pvc_S25_a_server_that_dies_is_not_noticed_by_guests(host, zookeeper):
	"""Each in turn, the leader too: requests go on with the others, no session ends."""
	host.apply(micro('m1'))
	for number in range(zookeeper.count):
		zookeeper.kill(number)
		zookeeper.leader()
		record(host, 'm1')
		zookeeper.run(number)
		zookeeper.settle()
	leader = zookeeper.leader()
	with Ticks(host, 'm1') as ticks:
		zookeeper.kill(leader)
		assert zookeeper.leader() != leader
		host.apply(micro('m2'), args=['--no-wait'])
		host.wait_state('m2', 'running')
		ticks.check()
	assert not events(host, 'session-lost')


def test_pvc_S25_no_majority_stops_nothing_and_is_over_when_it_is_back(host, zookeeper):
	host.apply(micro('m1'), micro('m2'))
	with Ticks(host, 'm1') as ticks:
		for number in (0, 1):
			zookeeper.kill(number)
		host.wait(lambda: events(host, 'session-lost'), 'the agent ends its session by its clock')
		refused = host.drover('stop', 'm2', '--timeout', '2s')
		assert refused.rc == 75 and refused.err
		assert host.state('m1') == host.state('m2') == 'running'
		zookeeper.heal()
		# The order that got no answer may have been stored, or be now: then it is off already.
		host.wait(lambda: host.drover('stop', 'm2', '--timeout', '5s').rc in (0, 69) and
			host.state('m2') == 'off', 'orders are carried out again')
		ticks.check()
	record(host, 'm1')


def test_an_agent_that_is_cut_off_tells_it_by_its_own_clock_and_joins_again(host, zookeeper):
	"""Nobody can tell it: it finds the end of its session while the link is still down."""
	host.apply(micro('m1'))
	id = (host.run / 'session').read_text(encoding='utf-8')
	with Ticks(host, 'm1') as ticks:
		zookeeper.switch.cut()
		host.wait(lambda: events(host, 'session-lost'), 'the agent ends its session by its clock')
		ticks.more(3)
		zookeeper.switch.mend()
		host.wait(lambda: (host.run / 'session').read_text(encoding='utf-8') != id,
			'the agent has another session')
		host.wait_state('m1', 'running')
		ticks.check()
	record(host, 'm1')


def test_a_server_that_is_cut_off_from_the_others_is_left(host, zookeeper):
	"""It still takes connections, but has no leader: the agent finds another one."""
	host.apply(micro('m1'))
	with Ticks(host, 'm1') as ticks:
		zookeeper.switch.cut(f'z{zookeeper.leader()}')
		zookeeper.leader()
		host.apply(micro('m2'), args=['--no-wait'])
		host.wait_state('m2', 'running')
		ticks.check()


def test_many_definitions_are_applied_at_once(host):
	definitions = [micro(f'web{i:03}', kvm_host='elsewhere') for i in range(400)]
	host.apply(*definitions, args=['--no-wait'])
	assert len(host.vms()) == 400
	host.restart_agent()
	host.wait(lambda: len(host.vms()) == 400, 'the agent has read them again')
	text = 'x' * 2000
	big = [micro(f'big{i:03}', kvm_host='elsewhere', kernel_args=text) for i in range(300)]
	refused = host.apply(*big, args=['--no-wait'], rc=69)
	assert 'nothing was applied' in refused.err
	assert len(host.vms()) == 400
