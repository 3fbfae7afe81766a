# SPDX-License-Identifier: Apache-2.0
"""A cluster of hosts with networks of their own, on a real ZooKeeper ensemble: what each sees of the
others when links are cut and servers die."""
import itertools

import pytest

from drover import Ticks, micro
from ensemble import ZooKeeper

SESSION = '8s'
numbers = itertools.count()


@pytest.fixture(scope='module')
def zookeeper():
	with ZooKeeper() as servers:
		yield servers


@pytest.fixture(scope='module')
def namespaces(zookeeper):
	"""Of two hosts, on the bridge of the ensemble; the ports are called as they are."""
	return {name: zookeeper.switch.port(name, number)
		for number, name in enumerate(('alpha', 'beta'), 101)}


@pytest.fixture
def hosts(zookeeper, namespaces, new_host):
	made = []
	store = zookeeper.address_of(f'/drover/hosts-{next(numbers)}')
	for number, name in enumerate(namespaces, 101):
		host = new_host(name, store=store, timers={'session': SESSION},
			cluster={'address': f'{zookeeper.switch.net}.{number}'})
		host.command = ['ip', 'netns', 'exec', namespaces[name]]
		made.append(host.start_agent())
	alpha, beta = made
	for host in made:
		host.wait(lambda h=host: h.drover('cluster', 'status').rc == 0, 'its store answers', 90)
	alpha.cli('cluster', 'init')
	beta.cli('cluster', 'join', input=alpha.cli('cluster', 'token').out)
	alpha.wait(lambda: alive(alpha) == {'alpha': True, 'beta': True}, 'both are there', 90)
	return made


def alive(host):
	return {node['name']: node['alive'] for node in
		host.cli('--format', 'json', 'node', 'ls').json()}


def test_hosts_see_each_other_and_say_when_they_do_not(zookeeper, hosts):
	alpha, beta = hosts
	switch = zookeeper.switch
	alpha.apply(micro('m1', kvm_host='beta'))
	assert alpha.vm('m1')['node'] == 'beta' and alpha.vm('m1')['state'] == 'running'
	assert alive(alpha) == alive(beta) == {'alpha': True, 'beta': True}
	with Ticks(beta, 'm1') as ticks:
		# A server of the store dies, the one that leads: both go on asking each other.
		leader = zookeeper.leader()
		zookeeper.kill(leader)
		assert alpha.cli('qmp', 'm1', 'query-status', '--timeout', '60s').json()['status'] \
			== 'running'
		zookeeper.run(leader)
		zookeeper.settle()
		# beta is cut off from everything, and nobody calls that the end of its guest.
		switch.cut('beta')
		refused = alpha.drover('pause', 'm1')
		assert refused.rc == 75 and "node 'beta'" in refused.err
		alpha.wait(lambda: not alive(alpha)['beta'], 'beta is known to be away')
		listed = alpha.vms()['m1']
		assert listed['state'] == 'unknown' and "'beta' is away" in listed['reason']
		assert beta.state('m1') == 'running'
		switch.mend('beta')
		alpha.wait(lambda: alive(alpha)['beta'], 'beta is back', 90)
		alpha.wait(lambda: alpha.vms()['m1']['state'] == 'running', 'and its guest', 90)
		alpha.wait_state('m1', 'running')
		ticks.check()
	alpha.cli('kill', 'm1')
	alpha.cli('rm', 'm1')
	assert beta.vm('m1') is None


def test_without_a_majority_of_the_store_both_say_so_and_guests_run_on(zookeeper, hosts):
	alpha, beta = hosts
	alpha.apply(micro('m1', kvm_host='beta'))
	alpha.wait(lambda: alpha.vms()['m1']['state'] == 'running', 'beta has told its state')
	with Ticks(beta, 'm1') as ticks:
		for i in range(2):
			zookeeper.kill(i)
		alpha.wait(lambda: alpha.drover('cluster', 'status').rc == 75, 'the store is away', 90)
		# Where beta is was known before.
		assert alpha.cli('qmp', 'm1', 'query-status', '--timeout', '60s').json()['status'] \
			== 'running'
		assert alpha.vms()['m1']['state'] == 'running', 'the last that was told'
		zookeeper.heal()
		alpha.wait(lambda: alpha.drover('cluster', 'status').rc == 0, 'the store is back', 90)
		alpha.wait(lambda: all(alive(alpha).values()), 'both are there', 90)
		alpha.wait_state('m1', 'running')
		ticks.check()
	alpha.cli('kill', 'm1')
	alpha.cli('rm', 'm1')
