# SPDX-License-Identifier: Apache-2.0
"""Agents that live by the index of their node, as those of a large cluster do: all VMs are listed at the
start and when somebody asks, and not again within a day."""
import contextlib
import sqlite3

import pytest

from drover import micro
from field import Loopback
from journey import Witness, make_cluster, wait_runs_on

LONG = ('--timeout', '120s')
DAY = str(24 * 3600 * 1000000)


@pytest.fixture
def trio(new_host, tmp_path, monkeypatch):
	monkeypatch.setenv('DROVER_TEST_NEAR', DAY)
	hosts = make_cluster(new_host, tmp_path, ('alpha', 'beta', 'gamma'))
	for host in hosts:
		host.wait(lambda h=host: 'living by the index' in h.agent_log(), 'it lives by its index')
	return hosts


def store(tmp_path, *words):
	with contextlib.closing(sqlite3.connect(tmp_path / 'store.db', timeout=60)) as db, db:
		return db.execute(*words).fetchall()


def index(tmp_path):
	"""[node, VM] of each entry."""
	return sorted(key.split('/')[3:] for key, in
		store(tmp_path, "select key from keys where key like '/drover/assign/%'"))


def test_each_node_hears_of_what_is_its_business(trio, tmp_path):
	alpha, beta, gamma = trio
	alpha.apply(micro('m1', kvm_host='beta'))
	wait_runs_on(trio, 'm1', beta)
	with Witness(trio, 'm1') as witness:
		assert gamma.vm('m1')['state'] == 'running', 'what is far is read when somebody asks'
		alpha.cli('migrate', 'm1', '--to', 'gamma', *LONG)
		wait_runs_on(trio, 'm1', gamma)
		alpha.cli('unmigrate', 'm1', *LONG)
		wait_runs_on(trio, 'm1', beta)
		gamma.apply(micro('m1', kvm_host='alpha'), args=LONG)
		wait_runs_on(trio, 'm1', alpha)
		witness.check(moves=3)
	gamma.cli('stop', 'm1')
	assert [host.vm('m1')['state'] for host in trio] == ['off'] * 3
	beta.cli('start', 'm1')
	wait_runs_on(trio, 'm1', alpha)
	gamma.cli('kill', 'm1')
	gamma.cli('rm', 'm1')
	assert [host.vms() for host in trio] == [{}] * 3
	alpha.wait(lambda: index(tmp_path) == [], 'nothing is left of it in the index')


def test_an_entry_that_is_true_no_more_is_taken_out(trio, tmp_path):
	alpha, _, _ = trio
	alpha.apply(micro('m1', kvm_host='gamma', online=False))
	alpha.wait(lambda: ['gamma', 'm1'] in index(tmp_path), 'gamma is told')
	alpha.apply(micro('m1', kvm_host='beta', online=False))
	alpha.wait(lambda: index(tmp_path) == [['beta', 'm1']], 'it is the business of beta alone')


def test_an_entry_that_is_missing_is_no_lost_vm(trio, tmp_path):
	alpha, beta, gamma = trio
	gamma.stop_agent()
	alpha.apply(micro('m1', kvm_host='gamma'), args=['--no-wait'])
	store(tmp_path, "delete from keys where key like '/drover/assign/%'")
	gamma.start_agent()
	wait_runs_on(trio, 'm1', gamma)
	gamma.kill_agent()
	gamma.start_agent()
	gamma.wait(lambda: gamma.vm('m1')['state'] == 'running', 'it is known again')
	gamma.wait(lambda: index(tmp_path) == [['gamma', 'm1']], 'it is in the index')
	beta.cli('stop', 'm1')
	assert gamma.vm('m1')['state'] == 'off'


def test_what_is_to_be_here_stays_in_the_index_when_nobody_holds_it(trio, tmp_path):
	alpha, _, gamma = trio
	alpha.apply(micro('m1', kvm_host='gamma'))
	wait_runs_on(trio, 'm1', gamma)
	alpha.cli('stop', 'm1')
	assert index(tmp_path) == [['gamma', 'm1']]


def test_entries_that_are_missing_are_put_in_at_the_next_listing(trio, tmp_path):
	alpha, _, gamma = trio
	alpha.apply(*(micro(f'm{i}', kvm_host='gamma', online=False) for i in range(5)))
	entries = index(tmp_path)
	assert entries == [['gamma', f'm{i}'] for i in range(5)]
	gamma.kill_agent()
	store(tmp_path, "delete from keys where key like '/drover/assign/%'")
	gamma.start_agent()
	gamma.wait(lambda: index(tmp_path) == entries, 'all of them are in the index again')


def test_a_request_about_one_vm_reads_that_one(trio, tmp_path):
	alpha, beta, _ = trio
	alpha.apply(micro('m1', kvm_host='gamma', online=False), micro('m2', kvm_host='gamma', online=False))
	assert beta.vm('m1')['memory_mib'] == 64
	store(tmp_path, "update keys set value = 'damaged' where key = '/drover/vms/m2/definition'")
	alpha.apply(micro('m1', kvm_host='gamma', online=False, memory=96))
	assert beta.vm('m1')['memory_mib'] == 96
	assert 'cannot be read' not in beta.agent_log() + alpha.agent_log(), 'nobody has listed all'


def test_what_is_far_is_read_before_a_definition_is_called_unchanged(trio):
	alpha, beta, _ = trio
	first, second = (micro('m1', kvm_host='gamma', online=False, memory=size) for size in (64, 96))
	beta.apply(first)
	alpha.apply(second)
	assert 'changed' in beta.apply(first).out.split()
	assert alpha.vm('m1')['memory_mib'] == 64


def test_who_lives_by_his_index_does_so_for_as_long_as_there_are_many(new_host, tmp_path, monkeypatch):
	monkeypatch.setenv('DROVER_TEST_NEAR', DAY)
	monkeypatch.setenv('DROVER_TEST_FEW', '2')
	hosts = make_cluster(new_host, tmp_path, ('alpha', 'beta'))
	alpha, beta = hosts
	alpha.apply(micro('m1', kvm_host='beta', online=False))
	assert all('living by the index' not in host.agent_log() for host in hosts)
	gamma = new_host('gamma', **Loopback(tmp_path).config('gamma')).start_agent()
	gamma.wait(lambda: gamma.drover('cluster', 'status').rc == 0, 'its store answers')
	gamma.cli('cluster', 'join', input=alpha.cli('cluster', 'token').out)
	# Each change is a reason to list all; so is this one.
	alpha.apply(micro('m2', kvm_host='beta', online=False))
	for host in hosts:
		host.wait(lambda h=host: 'living by the index' in h.agent_log(), 'it lives by its index')
	beta.wait(lambda: index(tmp_path) == [['beta', 'm1'], ['beta', 'm2']], 'both are in the index')
	gamma.cli('cluster', 'leave')
	for host in hosts:
		host.wait(lambda h=host: 'are listed again after each change' in h.agent_log(), 'it lists all again')
	alpha.apply(micro('m3', kvm_host='beta'))
	wait_runs_on(hosts, 'm3', beta)
