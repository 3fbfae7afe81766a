# SPDX-License-Identifier: Apache-2.0
"""The commands that move a running guest: migrate, unmigrate, move, and what they show."""
import signal
import struct
import time

import pytest

from drover import micro
from journey import Witness, make_cluster, timelines, wait_runs_on

# Generous: two guests under TCG on a busy machine.
LONG = ('--timeout', '120s')


@pytest.fixture
def pair(new_host, tmp_path):
	return make_cluster(new_host, tmp_path)


@pytest.mark.asan
def test_a_guest_is_migrated_and_brought_home_by_commands_that_wait(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	with Witness(pair, 'm1') as witness:
		assert alpha.cli('migrate', 'm1', '--to', 'beta', *LONG).out == 'm1: running\n'
		vm = beta.vm('m1')
		assert (vm['state'], vm['target'], vm['placement']['return_to']) == ('running', 'beta', 'alpha')
		alpha.cli('unmigrate', 'm1', *LONG)
		vm = alpha.vm('m1')
		assert (vm['state'], vm['node'], vm['placement']['kind']) == ('running', 'alpha', 'move')
		alpha.cli('migrate', 'm1', *LONG)
		assert beta.vm('m1')['state'] == 'running', 'the only other node was chosen'
		beta.cli('move', 'm1', '--to', 'beta', *LONG)
		assert beta.vm('m1')['placement']['kind'] == 'move'
		assert 'there is no way back' in beta.drover('unmigrate', 'm1').err
		witness.check(moves=3)


def test_migrations_shows_both_sides_on_either_node(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	alpha.cli('migrate', 'm1', '--to', 'beta', *LONG)
	for host in pair:
		host.wait(lambda: len(host.cli('migrations', 'm1', '--format', 'json').json()) == 2, 'both have told')
		lines = {line['role']: line for line in host.cli('migrations', '--format', 'json').json()}
		assert [(line['vm'], line['node'], line['result']) for line in (lines['source'], lines['target'])] == \
			[('m1', 'alpha', 'moved'), ('m1', 'beta', 'moved')]
		assert lines['source']['observed_usec'] > 0 and lines['source']['pause_usec'] > 0
		text = host.cli('migrations', 'm1').out
		assert text.startswith('m1: alpha -> beta, moved; began ') and text.count('moved; began') == 1
		assert ' s  alpha: switching\n' in text and ' s  beta: running\n' in text
		assert 'us between STOP and RESUME' in text and 'us as the keeper that sent it saw it' in text
		assert "there is no VM 'm2'" in host.cli('migrations', 'm2', rc=69).err


def test_migrations_says_whose_side_is_missing(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	alpha.cli('migrate', 'm1', '--to', 'beta', *LONG)
	alpha.wait(lambda: len(alpha.cli('migrations', 'm1', '--format', 'json').json()) == 2, 'both have told')
	beta.stop_agent()
	shown = alpha.drover('migrations', 'm1')
	assert shown.rc == 0 and shown.out.startswith('m1: alpha -> beta, moved; began ')
	assert "node 'beta' does not tell its side: " in shown.err


def test_a_node_whose_lease_was_interrupted_lets_its_guests_go(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	alpha.wait_state('m1', 'running')
	page = alpha.run / 'lease'
	alpha.kill_agent()
	alpha.wait(lambda: struct.unpack_from('=QQ', page.read_bytes(), 64)[1] * 1000 < \
		time.clock_gettime_ns(time.CLOCK_BOOTTIME), 'the lease is over')
	alpha.start_agent()
	alpha.cli('migrate', 'm1', '--to', 'beta', *LONG)
	assert beta.vm('m1')['state'] == 'running'


def test_an_order_may_be_given_to_any_node(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	beta.wait(lambda: 'm1' in beta.vms(), 'beta knows of it')
	assert "is on node 'alpha' already" in beta.drover('migrate', 'm1', '--to', 'alpha').err
	beta.cli('migrate', 'm1', '--to', 'beta', *LONG)
	alpha.wait(lambda: alpha.vm('m1')['node'] == 'beta', 'alpha knows where it went')
	alpha.cli('migrate', 'm1', '--to', 'alpha', *LONG)
	assert alpha.vm('m1')['placement']['kind'] == 'move', 'that is its home'


def hold_copying(source, target, vm, *words):
	"""An order to migrate, held while memory is copied; the keeper."""
	source.hold_at('keeper.source.copying')
	source.cli('migrate', vm, '--to', target.name, '--no-wait', *words)
	return source.held('keeper.source.copying')


def go_on(host, keeper):
	host.hold_at()
	keeper.signal(signal.SIGCONT)


def test_a_migration_is_cancelled_and_the_guest_stays(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	pid = alpha.vm('m1')['pid']
	with Witness(pair, 'm1') as witness:
		keeper = hold_copying(alpha, beta, 'm1')
		waiting = alpha.background('migrate', 'm1', '--cancel', *LONG)
		alpha.wait(lambda: alpha.vm('m1')['target'] == 'alpha', 'it is to stay')
		assert alpha.vm('m1')['placement']['cancel'] == 2
		assert waiting.poll() is None, 'who waits does so until it is called off'
		go_on(alpha, keeper)
		assert alpha.ended(waiting).rc == 0 and alpha.vm('m1')['migration'] is None
		assert wait_runs_on(pair, 'm1', alpha)['pid'] == pid
		witness.check(moves=1)
	beta.wait(lambda: not beta.left(), 'nothing is left of the receiver')
	alpha.wait(lambda: alpha.vm('m1')['migration'] is None, 'it is over')
	assert 'is not being moved' in alpha.drover('migrate', 'm1', '--cancel').err
	[line] = timelines(alpha, 'm1')
	assert line['result'] == 'cancelled', line
	assert [phase['phase'] for phase in line['phases']].count('cancelling') == 1, line
	assert alpha.text(alpha.vm_log('m1', 'keeper.log')).count(': cancel (') < 10, 'QEMU is told, and waited for'


def test_fc_M17_the_newest_target_wins(new_host, tmp_path):
	hosts = make_cluster(new_host, tmp_path, names=('alpha', 'beta', 'gamma'))
	alpha, beta, gamma = hosts
	alpha.apply(micro('m1'))
	with Witness(hosts, 'm1') as witness:
		keeper = hold_copying(alpha, beta, 'm1')
		alpha.cli('migrate', 'm1', '--to', 'gamma', '--no-wait')
		go_on(alpha, keeper)
		vm = wait_runs_on(hosts, 'm1', gamma)
		witness.check(moves=4)
	assert vm['placement']['return_to'] == 'alpha'
	beta.wait(lambda: not beta.left(), 'nothing is left of the first receiver')


def test_fc_M13_one_leaves_after_the_other(pair):
	alpha, beta = pair
	for name in ('m1', 'm2'):
		alpha.apply(micro(name))
	keeper = hold_copying(alpha, beta, 'm1')
	alpha.cli('migrate', 'm2', '--to', 'beta', '--no-wait')
	beta.wait(lambda: beta.vm('m2')['target'] == 'beta', 'beta knows of the second')
	assert beta.qemu('m1') and not beta.qemu('m2')
	go_on(alpha, keeper)
	for name in ('m1', 'm2'):
		wait_runs_on(pair, name, beta)


def test_by_shutdown_when_it_was_ordered_so(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	alpha.cli('migrate', 'm1', '--to', 'beta', '--method', 'shutdown', *LONG)
	assert beta.vm('m1')['state'] == 'running'
	beta.wait(lambda: 'MICRO-UP' in beta.serial('m1'), 'the guest is up')
	assert beta.serial('m1').count('MICRO-UP') == 1 and alpha.qemus() == []
	assert alpha.cli('migrations').out == ''
