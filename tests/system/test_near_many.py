# SPDX-License-Identifier: Apache-2.0
"""A cluster of twelve agents on real ZooKeeper servers: with more than ten members each lives by the index of its
node, with ten again by a listing of all.  (What a listing costs is left out: here they live by it at once.)"""
import json
import signal

import pytest

from drover import micro
from ensemble import ZooKeeper
from field import Loopback
from journey import make_cluster, wait_runs_on

DAY = str(24 * 3600 * 1000000)
LONG = ('--timeout', '120s')
FEW, MANY, EACH = 10, 12, 10
LISTED_AGAIN = 'are listed again after each change'


class OnServers(Loopback):
	"""Hosts on the loopback, their records in real servers."""

	def __init__(self, directory, address):
		super().__init__(directory)
		self.address = address

	def config(self, name):
		return super().config(name) | {'store': self.address}


def said(host, words):
	return host.agent_log().count(words)


def wait_near(hosts):
	for host in hosts:
		host.wait(lambda h=host: said(h, 'living by the index') > 0, 'it lives by its index')


def places(host):
	return {vm['name']: vm['target'] for vm in host.cli('ls', '--format', 'json').json()}


@pytest.fixture(scope='module')
def servers():
	"""They outlive the hosts."""
	with ZooKeeper(servers=1) as running:
		yield running


@pytest.mark.slow
def test_a_cluster_grows_beyond_ten_members_and_shrinks_again(new_host, servers, tmp_path, monkeypatch):
	monkeypatch.setenv('DROVER_TEST_NEAR', DAY)
	monkeypatch.setenv('DROVER_TEST_FEW', str(FEW))
	names = [f'n{i:02}' for i in range(MANY)]
	field = OnServers(tmp_path, servers.address_of('/drover/many'))
	hosts = make_cluster(new_host, tmp_path, names[:FEW], field)
	first, last = hosts[0], hosts[-1]
	first.apply(*(micro(f'{host.name}-{i}', kvm_host=host.name, online=False) for host in hosts for i in range(EACH)))
	assert not any(said(host, 'living by the index') for host in hosts)

	for name in names[FEW:]:
		host = new_host(name, **field.config(name), timers={'migration_switch': '10s'}).start_agent()
		host.wait(lambda h=host: h.drover('cluster', 'status').rc == 0, 'its store answers')
		host.cli('cluster', 'join', input=first.cli('cluster', 'token').out)
		hosts.append(host)
	eleventh, twelfth = hosts[FEW:]
	# The list of members reaches them by and by; each change is a reason to look.
	first.apply(micro('mover', kvm_host=twelfth.name))
	wait_near(hosts[:FEW])
	wait_runs_on(hosts, 'mover', twelfth)
	# Heard of by the index alone: written by one, read by the other.
	last.apply(micro('mover', kvm_host=eleventh.name), args=LONG)
	wait_runs_on(hosts, 'mover', eleventh)
	assert places(last) == {f'{host.name}-{i}': host.name for host in hosts[:FEW] for i in range(EACH)} | \
		{'mover': eleventh.name}

	# Its writer dies when it is stored and before anybody was told: the entry is in the same transaction.
	reached = first.run / 'checkpoint.reached'
	(first.run / 'checkpoint').write_text('agent.definition-written\n', encoding='utf-8')
	command = first.background('apply', str(write(tmp_path, micro('orphan', kvm_host=last.name))))
	first.wait(lambda: reached.exists() and 'agent.definition-written' in reached.read_text(encoding='utf-8'), 'it is written')
	(first.run / 'checkpoint').unlink()
	first.kill_agent()
	command.send_signal(signal.SIGKILL)
	command.communicate()
	wait_runs_on(hosts[1:], 'orphan', last)
	first.start_agent()
	last.kill_agent()
	last.start_agent()
	wait_runs_on(hosts, 'orphan', last)

	for name in ('orphan', 'mover'):
		first.cli('kill', name)
		first.cli('rm', name)
	assert not {'orphan', 'mover'} & set(places(twelfth))

	for host in (twelfth, eleventh):
		host.cli('cluster', 'leave')
	for host in hosts[:FEW]:
		host.wait(lambda h=host: said(h, LISTED_AGAIN) > 0, 'it lists all again')
	first.apply(micro('later', kvm_host=last.name))
	wait_runs_on(hosts[:FEW], 'later', last)


def write(directory, definition):
	path = directory / f'{definition["name"]}.yaml'
	path.write_text(json.dumps(definition), encoding='utf-8')
	return path
