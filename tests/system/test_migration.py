# SPDX-License-Identifier: Apache-2.0
"""A running guest goes from one host to another and does not notice; whatever goes wrong on the way,
it runs on one of the two."""
import json

import pytest

from drover import Failure, micro, wait
from journey import (DISK_WORDS, Witness, dump, make_cluster, share_volumes, timelines, wait_runs_on)


@pytest.fixture
def pair(new_host, tmp_path):
	return make_cluster(new_host, tmp_path)


def placed(host, **parameters):
	"""Definition of a guest that belongs on `host`."""
	words = {'words': DISK_WORDS} if 'disk' in parameters else {}
	return micro('m1', kvm_host=host.name, **words, **parameters)


def start_on(host, **parameters):
	host.apply(placed(host, **parameters))
	return host.wait_state('m1', 'running')


def send(host, to, **parameters):
	"""Changes where it belongs, by its definition; comes back at once."""
	host.drover('apply', '-', input=json.dumps(placed(to, **parameters)))


@pytest.mark.asan
def test_a_running_guest_follows_its_kvm_host(pair):
	alpha, beta = pair
	before = start_on(alpha)
	with Witness(pair, 'm1') as witness:
		send(alpha, beta)
		after = wait_runs_on(pair, 'm1', beta)
		witness.check(moves=1)
	for key in ('uuid', 'machine_type', 'memory_mib', 'cores', 'accelerator'):
		assert after[key] == before[key], key
	assert after['epoch'] == before['epoch'] + 2, 'one write to move it, one to take it'
	alpha.wait(lambda: not alpha.left(), 'nothing of it is left where it was')
	for host in pair:
		assert 'its keeper is gone' not in host.agent_log(), 'no keeper died over it'
	assert '"moved-away"' in alpha.text(alpha.vm_log('m1', 'events.jsonl'))
	assert '"arrived"' in beta.text(beta.vm_log('m1', 'events.jsonl'))


def test_a_migration_leaves_a_timeline_on_both_sides(pair):
	alpha, beta = pair
	start_on(alpha)
	send(alpha, beta)
	wait_runs_on(pair, 'm1', beta)
	for host, role in ((alpha, 'source'), (beta, 'target')):
		host.wait(lambda h=host: timelines(h, 'm1'), f'{host.name} has written its timeline')
		[line] = timelines(host, 'm1')
		assert (line['role'], line['result'], line['from'], line['to']) == \
			(role, 'moved', 'alpha', 'beta')
		assert line['pause_usec'] > 0
	phases = [phase['phase'] for phase in timelines(alpha, 'm1')[0]['phases']]
	for earlier, later in zip(('agreed', 'moving', 'copying', 'switching', 'completed'),
			('moving', 'copying', 'switching', 'completed', 'running heard')):
		assert phases.index(earlier) < phases.index(later), phases


def test_a_local_disk_comes_along(pair):
	alpha, beta = pair
	start_on(alpha, disk=1)
	with Witness(pair, 'm1') as witness:
		send(alpha, beta, disk=1)
		wait_runs_on(pair, 'm1', beta)
		alpha.wait(lambda: not (alpha.lib / 'volumes/m1/root.raw').exists(),
			'the old disk has lost its name')
		send(beta, alpha, disk=1)
		wait_runs_on(pair, 'm1', alpha)
		witness.check(moves=2)
	[volume] = [v for v in alpha.cli('volume', 'ls', '--format', 'json').json() if v['vm'] == 'm1']
	assert volume['claimed_by'] == 'alpha'
	gone = sorted(path.name for path in (beta.lib / 'volumes/m1').iterdir())
	assert len(gone) == 1 and gone[0].endswith('.gone.raw'), gone
	# What came along is what is started from.
	pid = alpha.vm('m1')['pid']
	alpha.cli('restart', 'm1')
	assert alpha.vm('m1')['pid'] != pid


@pytest.mark.parametrize('shared', [False, True], ids=['local', 'shared'])
def test_a_write_that_is_lost_on_the_way_would_be_seen(new_host, tmp_path, shared):
	"""Of the guest that looks after its disk in these tests: an older state of one block is planted."""
	pair = make_cluster(new_host, tmp_path, storage={'shared': shared})
	alpha, beta = pair
	if shared:
		share_volumes(pair)
	start_on(alpha, disk=1)
	block = 5 * 65536
	with Witness(pair, 'm1') as witness:
		witness.check_disk()
		with open(alpha.lib / 'volumes/m1/root.raw', 'rb') as disk:
			disk.seek(block)
			old = disk.read(4096)
		witness.check_disk()
		send(alpha, beta, disk=1)
		wait_runs_on(pair, 'm1', beta)
		# Between looking at a block and writing over it the guest sees nothing of that.
		with pytest.raises(Failure, match='1 wrong blocks'):
			for _ in range(10):
				with open(beta.lib / 'volumes/m1/root.raw', 'r+b') as disk:
					disk.seek(block)
					disk.write(old)
				witness.check_disk()


def test_whose_disks_are_elsewhere_when_it_ends_on_its_way_is_told_and_started_there(pair):
	alpha, beta = pair
	start_on(alpha, disk=1)
	alpha.hold_at('keeper.source.mirrored')
	send(alpha, beta, disk=1)
	keeper = alpha.held('keeper.source.mirrored')
	alpha.qemu('m1').kill()
	alpha.hold_at()
	keeper.signal(18)  # SIGCONT
	beta.wait(lambda: 'its disks are on node \'alpha\'' in ((beta.vm('m1') or {}).get('reason') or ''),
		'it is told where its disks are')
	assert "'drover move m1 --to alpha'" in beta.vm('m1')['reason'] == alpha.vm('m1')['reason']
	beta.cli('move', 'm1', '--to', 'alpha', '--timeout', '120s')
	wait_runs_on(pair, 'm1', alpha)
	beta.wait(lambda: not beta.left(), 'nothing is left of the receiver')


def test_on_a_shared_file_system_the_disk_stays_where_it_is(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, storage={'shared': True})
	alpha, beta = pair
	share_volumes(pair)
	start_on(alpha, disk=1)
	disk = alpha.lib / 'volumes/m1/root.raw'
	inode = disk.stat().st_ino
	with Witness(pair, 'm1') as witness:
		send(alpha, beta, disk=1)
		wait_runs_on(pair, 'm1', beta)
		witness.check(moves=1)
	assert disk.stat().st_ino == inode
	assert sorted(path.name for path in disk.parent.iterdir()) == ['root.claim', 'root.raw']
	beta.wait(lambda: json.loads((disk.parent / 'root.claim').read_text())['node'] == 'beta',
		'the claim is the new owner\'s')


def test_a_guest_that_comes_back_has_the_same_hardware(pair):
	alpha, beta = pair
	start_on(alpha)
	first = alpha.cli('hardware', 'm1').out
	with Witness(pair, 'm1') as witness:
		for source, target in ((alpha, beta), (beta, alpha), (alpha, beta)):
			send(source, target)
			wait_runs_on(pair, 'm1', target)
		witness.check(moves=3)
	assert beta.cli('hardware', 'm1').out == first


def test_another_mind_while_it_is_copied_leaves_it_where_it_is(pair):
	alpha, beta = pair
	pid = start_on(alpha)['pid']
	with Witness(pair, 'm1') as witness:
		alpha.hold_at('keeper.source.copying')
		send(alpha, beta)
		keeper = alpha.held('keeper.source.copying')
		send(alpha, alpha)
		alpha.hold_at()
		keeper.signal(18)  # SIGCONT
		vm = wait_runs_on(pair, 'm1', alpha)
		witness.check(moves=1)
	assert vm['pid'] == pid
	beta.wait(lambda: not beta.left(), 'nothing is left of the receiver')


@pytest.mark.parametrize('victim', ['qemu', 'keeper'])
def test_a_target_that_dies_while_it_is_copied_costs_nothing(pair, victim):
	alpha, beta = pair
	pid = start_on(alpha)['pid']
	with Witness(pair, 'm1') as witness:
		alpha.hold_at('keeper.source.copying')
		send(alpha, beta)
		keeper = alpha.held('keeper.source.copying')
		beta.wait(lambda: beta.qemu('m1'), 'a receiver is there')
		(beta.qemu('m1') if victim == 'qemu' else beta.keeper('m1')).kill()
		alpha.hold_at()
		keeper.signal(18)
		# It is tried again, and works.
		vm = wait_runs_on(pair, 'm1', beta, deadline=60)
		witness.check(moves=6)
	assert vm['pid'] != pid


def test_without_a_cluster_it_stays_and_says_why(new_host, tmp_path):
	alpha = new_host('alpha', store=f'local:{tmp_path}/store.db').start_agent()
	beta = new_host('beta', store=f'local:{tmp_path}/store.db').start_agent()
	pid = start_on(alpha)['pid']
	send(alpha, beta)
	wait(lambda: 'drover cluster init' in ((beta.vm('m1') or {}).get('reason') or '') or
		'drover cluster init' in beta.text(beta.vm_log('m1', 'events.jsonl')),
		'the target says what is missing', dump=lambda: dump([alpha, beta]))
	beta.wait(lambda: [beta.vm('m1')[key] for key in ('state', 'node')] == ['running', 'alpha'] and
		'drover cluster init' in beta.vm('m1')['reason'], 'nor is it called failed there')
	assert alpha.vm('m1')['pid'] == pid
	send(alpha, alpha)
	alpha.wait(lambda: alpha.vm('m1')['wish'] == 'run', 'it belongs here again')
	beta.wait(lambda: not beta.left(), 'nothing is left of the receiver')


def test_a_paused_guest_stays_until_it_is_let_go_on(pair):
	alpha, beta = pair
	start_on(alpha)
	alpha.cli('pause', 'm1')
	beta.wait(lambda: (beta.vm('m1') or {}).get('state') == 'paused', 'the target knows of the pause')
	send(beta, beta)
	alpha.wait(lambda: alpha.vm('m1')['target'] == 'beta', 'both know where it belongs')
	assert alpha.vm('m1')['state'] == 'paused'
	assert 'started its keeper' not in beta.agent_log(), 'nothing is to be done there yet'
	alpha.cli('resume', 'm1', '--no-wait')
	wait_runs_on(pair, 'm1', beta)


def test_by_shutdown_it_ends_here_and_is_started_there(new_host, tmp_path):
	pair = make_cluster(new_host, tmp_path, storage={'shared': True})
	alpha, beta = pair
	start_on(alpha, migration_method='shutdown')
	send(alpha, beta, migration_method='shutdown')
	wait_runs_on(pair, 'm1', beta)
	assert alpha.vm('m1')['state'] == 'off' or alpha.vm('m1')['node'] == 'beta'
	beta.wait(lambda: 'MICRO-UP' in beta.serial('m1'), 'the guest is up')
	assert beta.serial('m1').count('MICRO-UP') == 1
	assert '"migrating"' not in alpha.text(alpha.vm_log('m1', 'events.jsonl'))
