# SPDX-License-Identifier: Apache-2.0
"""Agents that live by the index of their node, as those of a large cluster do: all VMs are listed at the
start and when somebody asks, and not again within a day."""
import contextlib
import sqlite3

import pytest

from drover import micro
from journey import Witness, make_cluster, wait_runs_on

LONG = ('--timeout', '120s')


@pytest.fixture
def trio(new_host, tmp_path, monkeypatch):
	monkeypatch.setenv('DROVER_TEST_NEAR', str(24 * 3600 * 1000000))
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
	beta.cli('stop', 'm1')
	assert gamma.vm('m1')['state'] == 'off'
