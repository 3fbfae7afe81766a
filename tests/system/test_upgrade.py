# SPDX-License-Identifier: Apache-2.0
"""The programs of an earlier commit, which knew one host only, beside those of today: neither harms the
other's guests."""
import functools
import os
import pathlib
import signal
import subprocess

import pytest

from drover import SOURCE, Failure, Ticks, build_dir, micro

LONG = ('--timeout', '120s')


@functools.cache
def old_build():
	"""Of DROVER_OLD_BUILD, else built out of the history; None where there is none."""
	if 'DROVER_OLD_BUILD' in os.environ:
		return pathlib.Path(os.environ['DROVER_OLD_BUILD'])
	where = build_dir() / 'earlier'
	done = subprocess.run([SOURCE / 'tests/upgrade/build', where], timeout=600, check=False)
	if done.returncode == 77:
		return None
	if done.returncode != 0:
		raise Failure(f'cannot build the earlier commit, see {where}/log')
	return where / 'build'


@pytest.fixture
def old():
	return old_build() or pytest.skip('the earlier commit is not in this clone')


def same(before, after):
	for key in ('pid', 'uuid', 'epoch', 'started', 'accelerator', 'machine_type'):
		assert after[key] == before[key], key


def switch(host, build):
	"""The agent ends and the one of another build goes on."""
	host.stop_agent()
	host.build = build
	host.start_agent()


def runs(host, name, build):
	keeper = host.keeper(name)
	try:
		return keeper and os.path.samefile(f'/proc/{keeper.pid}/exe', build / 'drover-keeper')
	except FileNotFoundError:  # it ends at this moment
		return False


def end_keeper(host, name):
	"""It ends; the agent starts the one that is installed beside it."""
	keeper = host.keeper(name)
	keeper.signal(signal.SIGTERM)
	keeper.gone()
	host.wait(lambda: host.keeper(name), 'there is a keeper')
	return host.wait_state(name, 'running')


def exercise(host, name):
	host.cli('pause', name)
	host.cli('resume', name)
	host.cli('restart', name)
	host.cli('stop', name)
	assert host.vm(name)['exit']['how'] == 'power-off'


@pytest.mark.slow
def test_fc_H17_an_old_guest_and_its_keeper_go_on_under_a_new_agent(new_host, old):
	host = new_host()
	host.build = old
	host.start_agent()
	host.apply(micro('m1', disk=1))
	before = host.vm('m1')
	with Ticks(host, 'm1') as ticks:
		switch(host, build_dir())
		# It is replaced by itself, once it is at rest; both have looked after the guest.
		host.wait(lambda: runs(host, 'm1', build_dir()), 'the keeper is a new one')
		same(before, host.wait_state('m1', 'running'))
		ticks.check()
	assert 'keeper-replaced' in host.event_names(None) and 'keeper-gone' not in host.event_names(None)
	exercise(host, 'm1')


@pytest.mark.slow
def test_fc_H17_a_new_guest_and_its_keeper_go_on_under_an_old_agent(new_host, old):
	host = new_host().start_agent()
	host.apply(micro('m1', disk=1))
	before = host.vm('m1')
	with Ticks(host, 'm1') as ticks:
		# That one cannot take over in place, and says so.
		host.stop_agent()
		host.build = old
		host.start_agent()
		same(before, host.wait_state('m1', 'running'))
		assert runs(host, 'm1', build_dir())
		host.cli('pause', 'm1')
		host.cli('resume', 'm1')
		before = host.vm('m1')
		same(before, end_keeper(host, 'm1'))
		assert runs(host, 'm1', old)
		ticks.more(3)
	exercise(host, 'm1')
	switch(host, build_dir())
	host.cli('start', 'm1')


@pytest.mark.slow
def test_fc_H17_old_and_new_agents_share_a_store(new_host, old, tmp_path):
	alpha, beta = (new_host(name, store=f'local:{tmp_path}/store.db') for name in ('alpha', 'beta'))
	alpha.build = old
	for host in (alpha, beta):
		host.start_agent()
		host.wait(lambda h=host: h.cli('node', '--format', 'json').json()['store_state'] == 'connected', 'it has joined')
	alpha.apply(micro('m1', kvm_host='alpha'))
	beta.apply(micro('m2', kvm_host='beta'))
	before = alpha.wait_state('m1', 'running'), beta.wait_state('m2', 'running')
	with Ticks(alpha, 'm1') as one, Ticks(beta, 'm2') as two:
		# What one writes the other keeps.
		beta.apply(micro('m1', kvm_host='alpha', memory=80))
		alpha.wait(lambda: alpha.vm('m1')['generation'] == 2, 'it has heard of the new generation')
		alpha.apply(micro('m2', kvm_host='beta', memory=80))
		beta.wait(lambda: beta.vm('m2')['generation'] == 2, 'it has heard of the new generation')
		switch(alpha, build_dir())
		alpha.wait(lambda: runs(alpha, 'm1', build_dir()), 'the keeper is a new one')
		same(before[0], alpha.wait_state('m1', 'running'))
		same(before[1], beta.wait_state('m2', 'running'))
		one.check()
		two.check()
	for host, name in ((alpha, 'm1'), (beta, 'm2')):
		host.cli('restart', name, *LONG)
		assert host.vm(name)['memory_mib'] == 80
