# SPDX-License-Identifier: Apache-2.0
"""A guest that may goes on at the target when the time of its migration is over, and its memory
follows.  It has a working set of 16 MiB and little bandwidth, so that most of it is still to come."""
import contextlib
import os
import signal

import pytest

import drover
import userfault
from drover import micro
from journey import Witness, happened, make_cluster, timelines, wait_runs_on
from moves import FILLED, NAME, POSTCOPY_WORDS, break_stream, phase, staged, wait_filled
from test_kill import has_checkpoints

@pytest.fixture(scope='module', autouse=True)
def right():
	with userfault.right_to_handle_faults() as given:
		if not given:
			pytest.skip('vm.unprivileged_userfaultfd cannot be set here')
		yield


# Where a keeper, an agent or QEMU of one side is killed.
KEPT = [('S', 'keeper.source.postcopy-stopped', 'S-keeper'), ('S', 'keeper.source.stopped', 'S-keeper'),
	('T', 'keeper.receive.stopped', 'T-keeper'), ('T', 'keeper.receive.take', 'T-agent'),
	('T', 'keeper.receive.running', 'T-keeper')]
KEPT_TOO = [('S', 'keeper.source.copying', 'T-keeper'), ('S', 'keeper.source.postcopy', 'S-keeper'),
	('S', 'keeper.source.continue', 'S-keeper'), ('S', 'keeper.source.stopped', 'T-keeper'),
	('S', 'keeper.source.stopped', 'S-agent'), ('S', 'keeper.source.running', 'S-keeper'),
	('T', 'keeper.receive.postcopy-agreed', 'T-keeper'), ('T', 'keeper.receive.take', 'T-keeper'),
	('T', 'keeper.migration.cont', 'T-keeper'), ('T', 'keeper.receive.all-here', 'T-keeper')]
LOST = [('S', 'keeper.source.running', 'S-qemu'), ('S', 'keeper.source.running', 'T-qemu')]
LOST_TOO = [('S', 'keeper.source.stopped', 'T-qemu'), ('T', 'keeper.receive.take', 'S-qemu'),
	('T', 'keeper.receive.running', 'S-qemu')]
if os.environ.get('DROVER_KILL_ALL'):
	KEPT += KEPT_TOO
	LOST += LOST_TOO


def cluster(new_host, directory, **timers):
	return make_cluster(new_host, directory, timers={'migration_deadline': '1s'} | timers)


def start_on(host, **parameters):
	host.apply(micro(NAME, words=POSTCOPY_WORDS, kvm_host=host.name, migration_postcopy=True, **parameters))
	host.wait_state(NAME, 'running')
	wait_filled(host)


def send(host, to, bandwidth='2M', **options):
	host.cli('migrate', NAME, '--to', to.name, '--bandwidth', bandwidth, '--no-wait', **options)


def wait_phase(host, *wanted):
	host.wait(lambda: phase(host) in wanted, f'{NAME} on {host.name} is {" or ".join(wanted)}')


def test_when_its_time_is_over_it_goes_on_at_the_target_and_its_memory_follows(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta)
		wait_phase(beta, 'fetching pages')
		assert beta.vm(NAME)['state'] == 'running'
		assert "follows from node 'alpha'" in beta.vm(NAME)['reason']
		witness.more(3)
		wait_runs_on(pair, NAME, beta)
		witness.check(moves=1)
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')
	[line] = timelines(alpha, NAME)
	assert line['result'] == 'moved'
	names = [entry['phase'] for entry in line['phases']]
	assert names.index('copying') < names.index('postcopy') < names.index('postcopy-active')


def test_what_is_copied_in_time_needs_no_postcopy_although_it_may(new_host, tmp_path):
	pair = alpha, beta = make_cluster(new_host, tmp_path)
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta, bandwidth='200M')
		wait_runs_on(pair, NAME, beta)
		beta.wait(lambda: beta.vm(NAME)['epoch'] == 4, 'the record names nobody any more who has pages')
		witness.check(moves=1)
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')
	assert not happened(alpha, NAME, 'postcopy')


@pytest.mark.asan
def test_a_stream_that_breaks_is_replaced_as_often_as_it_breaks(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta, bandwidth='1M')
		wait_phase(beta, 'fetching pages')
		for count in (1, 2):
			assert break_stream(alpha) == 1
			alpha.wait(lambda n=count: happened(alpha, NAME, 'postcopy-recovered') == n, 'it is mended')
		wait_runs_on(pair, NAME, beta)
		witness.check(moves=1)
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')
	names = [entry['phase'] for entry in timelines(alpha, NAME)[0]['phases']]
	assert names.count('postcopy-paused') == 2 and names.count('postcopy-active') == 3


@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_what_was_said_of_the_way_here_is_not_taken_for_news_of_the_way_on(new_host, tmp_path):
	"""The host that it came from says that it has no copy any more; that host is its next target."""
	pair = alpha, beta = cluster(new_host, tmp_path, migration_deadline='2s')
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		beta.hold_at('keeper.receive.running')
		send(alpha, beta, bandwidth='200M')
		keeper = beta.held('keeper.receive.running')
		beta.hold_at('agent.owner-write')  # so nobody is told that all pages are here
		keeper.signal(signal.SIGCONT)
		agent = beta.held('agent.owner-write')
		# It has a way to say so, unless the door was shut before: then the rest holds all the same.
		with contextlib.suppress(drover.Failure):
			beta.wait(lambda: happened(beta, NAME, 'feeder-lost'), 'it is said', deadline=5)
		beta.hold_at()
		agent.signal(signal.SIGCONT)
		wait_runs_on(pair, NAME, beta)
		beta.wait(lambda: beta.vm(NAME)['epoch'] == 4, 'all pages are here')
		send(beta, alpha, bandwidth='1M')
		wait_phase(alpha, 'fetching pages')
		assert break_stream(beta) == 1
		beta.wait(lambda: happened(beta, NAME, 'postcopy-recovered'), 'it is mended')
		wait_runs_on(pair, NAME, alpha)
		witness.check(moves=2)
	assert not happened(alpha, NAME, 'memory-lost')


def test_a_keeper_that_passes_a_second_stream_on_may_die(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta, bandwidth='1M')
		wait_phase(beta, 'fetching pages')
		break_stream(alpha)
		alpha.wait(lambda: happened(alpha, NAME, 'postcopy-recovered'), 'it is mended')
		beta.keeper(NAME).kill()
		wait_runs_on(pair, NAME, beta)
		witness.check(moves=1)
	assert [entry['phase'] for entry in timelines(alpha, NAME)[0]['phases']].count('postcopy-paused') == 2


def test_a_stream_in_which_nothing_flows_is_broken_and_replaced(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path, migration_stall='2s')
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta, bandwidth='1M')
		wait_phase(beta, 'fetching pages')
		qemu = beta.qemu(NAME)
		qemu.signal(signal.SIGSTOP)
		alpha.wait(lambda: happened(alpha, NAME, 'postcopy-broken'), 'it is seen that nothing flows')
		qemu.signal(signal.SIGCONT)
		wait_runs_on(pair, NAME, beta)
		witness.check(moves=1)
	assert happened(alpha, NAME, 'postcopy-recovered')


def test_a_user_may_stop_a_guest_whose_memory_is_still_on_its_way(new_host, tmp_path):
	alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	send(alpha, beta, bandwidth='1M')
	wait_phase(beta, 'fetching pages')
	beta.cli('kill', NAME)
	beta.wait_state(NAME, 'off')
	for host in (alpha, beta):
		host.wait(lambda h=host: not h.left(), f'nothing of it is left on {host.name}')


def test_that_the_pages_are_lost_is_told_by_whoever_comes_next(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	send(alpha, beta, bandwidth='1M')
	wait_phase(beta, 'fetching pages')
	agent, keeper, qemu = alpha.agent_process, alpha.keeper(NAME), alpha.qemu(NAME)
	for process in (agent, keeper, qemu):
		process.kill()
	alpha.reap_agent()
	alpha.start_agent()
	beta.wait(lambda: happened(beta, NAME, 'memory-lost'), 'the target hears of it')
	wait_runs_on(pair, NAME, beta)
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')


def test_a_migration_in_postcopy_has_no_way_back(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	start_on(alpha)
	with Witness(pair, NAME) as witness:
		send(alpha, beta)
		wait_phase(beta, 'fetching pages')
		refused = beta.drover('migrate', NAME, '--cancel')
		assert refused.rc and 'no way back' in refused.err, refused
		wait_runs_on(pair, NAME, beta)
		witness.check(moves=1)


def test_where_postcopy_cannot_be_that_is_said_at_the_start_and_the_deadline_ends_the_migration(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path, migration_deadline='2s')
	start_on(alpha)
	host_says = userfault.RIGHT.read_text(encoding='ascii')
	with Witness(pair, NAME) as witness:
		try:
			userfault.RIGHT.write_text('0', encoding='ascii')
			send(alpha, beta, bandwidth='1M')
			alpha.wait(lambda: happened(alpha, NAME, 'postcopy-impossible'), 'it is said')
		finally:
			userfault.RIGHT.write_text(host_says, encoding='ascii')
		told = alpha.text(alpha.vm_log(NAME, 'events.jsonl'))
		assert 'vm.unprivileged_userfaultfd' in told and "node 'beta'" in told
		alpha.wait(lambda: happened(alpha, NAME, 'migration-failed'), 'its time is over')
		alpha.cli('migrate', NAME, '--cancel')
		wait_runs_on(pair, NAME, alpha)
		witness.check(moves=1)
	assert not happened(alpha, NAME, 'postcopy')


def test_with_disks_that_come_along_there_is_no_postcopy(new_host, tmp_path):
	pair = alpha, beta = make_cluster(new_host, tmp_path)
	start_on(alpha, disk=1)
	send(alpha, beta, bandwidth='100M')
	wait_runs_on(pair, NAME, beta)
	assert 'disks come along' in alpha.text(alpha.vm_log(NAME, 'events.jsonl'))
	assert not happened(alpha, NAME, 'postcopy')


@pytest.fixture(scope='module')
def scene(tmp_path_factory):
	with staged(tmp_path_factory.mktemp('kill'), timers={'migration_deadline': '500ms'},
			words=POSTCOPY_WORDS, migration_postcopy=True, migration_bandwidth='4M') as it:
		yield it


def strike_at(scene, where, step, who):
	source = scene.source
	[target] = [host for host in scene.hosts if host is not source]
	armed = source if where == 'S' else target
	before = happened(source, NAME, 'postcopy')
	wait_filled(source)
	armed.hold_at(step)
	scene.send(target)
	holder = armed.held(step)
	scene.strike(who, target)
	for host in scene.hosts:
		host.hold_at()
	holder.signal(signal.SIGCONT)
	scene.revive()
	scene.arrive(target, deadline=2 * drover.DEADLINE)
	assert happened(source, NAME, 'postcopy') > before
	return target


def case_id(case):
	return '-'.join(case)


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('case', KEPT, ids=[case_id(case) for case in KEPT])
def test_no_memory_is_lost_with(scene, case):
	with scene.witness() as witness:
		strike_at(scene, *case)
		witness.check(moves=8)


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('case', LOST, ids=[case_id(case) for case in LOST])
def test_with_the_last_copy_of_a_page_the_guest_is_lost_and_started_anew(scene, case):
	target = strike_at(scene, *case)
	with scene.witness() as witness:
		witness.check(moves=1)
		assert min(witness.ticks) < FILLED
	if case[1:] == ('keeper.source.running', 'S-qemu'):
		assert happened(target, NAME, 'memory-lost')
