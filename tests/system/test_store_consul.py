# SPDX-License-Identifier: Apache-2.0
"""Agents whose records are in three real Consul servers: what they do when a server dies, when none
has a majority, when they are cut off, and when their token is wrong."""
import itertools
import json
import stat

import pytest

import consul
from drover import Ticks, micro

pytestmark = pytest.mark.skipif(not consul.available(), reason='no Consul: tests/consul/fetch DIR')
# Long enough for a busy machine to elect a leader in; Consul ends a session after twice that time.
SESSION = '8s'
SHORT = '3s'
numbers = itertools.count()


@pytest.fixture(scope='module')
def ensemble():
	with consul.Consul() as servers:
		yield servers


@pytest.fixture
def servers(ensemble):
	"""Whole again after each test."""
	yield ensemble
	ensemble.heal()


@pytest.fixture
def start(new_host, servers):
	"""Starts an agent in a cluster of its own."""
	def make(session=SESSION, **options):
		prefix = f'test-{next(numbers)}'
		return new_host(store=servers.address(prefix, **options),
			timers={'session': session}).start_agent()
	return make


def events(host, name):
	return [event for event in host.events() if event['event'] == name]


def session_of(host):
	return (host.run / 'session').read_text(encoding='utf-8')


def record(host, name):
	"""Writes to the store: the record of the VM's order."""
	host.cli('stop', name)
	host.wait_state(name, 'off')
	host.cli('start', name)
	return host.wait_state(name, 'running')


def test_a_vm_has_its_records_in_consul_and_the_token_is_told_to_nobody(start, servers):
	host = start()
	host.apply(micro('m1'))
	token = servers.token_file.read_text(encoding='utf-8')
	assert stat.S_IMODE((host.run / 'session').stat().st_mode) == 0o600
	for path in host.log.rglob('*'):
		assert path.is_dir() or token not in path.read_text(errors='replace'), path
	assert token not in host.cli('config').out
	with Ticks(host, 'm1') as ticks:
		host.restart_agent()
		host.wait_state('m1', 'running')
		ticks.check()
	record(host, 'm1')
	host.cli('stop', 'm1')
	host.cli('rm', 'm1')
	host.wait(lambda: host.vm('m1') is None, 'its records are gone')


@pytest.mark.asan
def test_a_session_is_resumed_by_an_agent_that_comes_back_in_time(start):
	host = start()
	host.apply(micro('m1'))
	id = session_of(host)
	with Ticks(host, 'm1') as ticks:
		host.kill_agent()
		host.start_agent()
		host.wait_state('m1', 'running')
		assert session_of(host) == id
		ticks.check()
	assert not events(host, 'session-lost')


def test_a_server_that_dies_is_not_noticed_by_guests(start, servers):
	"""Each in turn, the leader too: requests go on with the others, no session ends."""
	host = start()
	host.apply(micro('m1'))
	for number in range(servers.count):
		servers.kill(number)
		servers.settle()
		record(host, 'm1')
		servers.run(number)
		servers.settle()
	with Ticks(host, 'm1') as ticks:
		servers.kill(servers.settle())
		host.apply(micro('m2'), args=['--no-wait'])
		host.wait_state('m2', 'running')
		ticks.check()
	assert not events(host, 'session-lost')


def test_a_server_that_leaves_consul_takes_no_session_with_it(start, servers):
	"""Sessions of Consul end at once, whatever their TTL, with the node that they hang on."""
	host = start()
	host.apply(micro('m1'))
	id = session_of(host)
	servers.leave(0)  # the one that is asked first, so the one that made the session
	servers.settle()
	record(host, 'm1')
	assert session_of(host) == id and not events(host, 'session-lost')


def test_no_majority_stops_nothing_and_is_over_when_it_is_back(start, servers):
	host = start(SHORT)
	host.apply(micro('m1'), micro('m2'))
	with Ticks(host, 'm1') as ticks:
		for number in (0, 1):
			servers.kill(number)
		host.wait(lambda: events(host, 'session-lost'), 'the agent ends its session by its clock')
		refused = host.drover('stop', 'm2', '--timeout', '2s')
		assert refused.rc == 75 and refused.err
		assert host.state('m1') == host.state('m2') == 'running'
		servers.heal()
		# The order that got no answer may have been stored, or be now: then it is off already.
		host.wait(lambda: host.drover('stop', 'm2', '--timeout', '5s').rc in (0, 69) and
			host.state('m2') == 'off', 'orders are carried out again')
		ticks.check()
	record(host, 'm1')


def test_an_agent_that_is_cut_off_tells_it_by_its_own_clock_and_joins_again(start, servers):
	"""Nobody can tell it: it finds the end of its session while the link is still down."""
	host = start(SHORT)
	host.apply(micro('m1'))
	id = session_of(host)
	with Ticks(host, 'm1') as ticks:
		servers.switch.cut()
		host.wait(lambda: events(host, 'session-lost'), 'the agent ends its session by its clock')
		ticks.more(3)
		servers.switch.mend()
		host.wait(lambda: session_of(host) != id, 'the agent has another session')
		host.wait_state('m1', 'running')
		ticks.check()
	record(host, 'm1')


def test_a_leader_that_is_cut_off_from_the_others_is_left(start, servers):
	host = start()
	host.apply(micro('m1'))
	with Ticks(host, 'm1') as ticks:
		old = servers.settle()
		servers.switch.cut(f'c{old}')
		servers.settle(without=old)
		host.apply(micro('m2'), args=['--no-wait'])
		host.wait_state('m2', 'running')
		ticks.check()


def test_a_wrong_token_is_said_to_be_wrong(start, servers):
	wrong = servers.write_token('wrong', '99999999-1111-2222-3333-444455556666')
	host = start(token_file=wrong)
	host.wait(lambda: 'key_prefix' in host.agent_log(), 'the rights that are needed are named')
	def refused():
		answer = host.drover('apply', '-', '--no-wait', input=json.dumps(micro('m1')))
		return answer.rc == 75 and str(wrong) in answer.err
	host.wait(refused, 'a command tells it too')
	assert '99999999' not in host.agent_log()
	servers.write_token('wrong', servers.token_file.read_text(encoding='utf-8'))
	host.wait(lambda: host.drover('apply', '-', '--no-wait', input=json.dumps(micro('m1'))).rc == 0,
		'the new token is used')
	host.wait_state('m1', 'running')


def test_many_definitions_are_applied(start):
	host = start()
	for first in range(0, 300, 30):
		host.apply(*[micro(f'web{i:03}', kvm_host='elsewhere') for i in range(first, first + 30)],
			args=['--no-wait'])
	assert len(host.vms()) == 300
	host.restart_agent()
	host.wait(lambda: len(host.vms()) == 300, 'the agent has read them again')
	more = [micro(f'more{i:03}', kvm_host='elsewhere') for i in range(100)]
	refused = host.apply(*more, args=['--no-wait'], rc=69)
	assert 'nothing was applied' in refused.err
	assert len(host.vms()) == 300
