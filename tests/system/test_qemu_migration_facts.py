# SPDX-License-Identifier: Apache-2.0
"""What QEMU itself does in a migration, without Drover: the ground on which the ownership protocol
stands.  docs/QEMU.md has the same as a table.

QEMU of this machine always; with DROVER_QEMUS=DIR also those that tests/qemus/fetch DIR unpacked.
What "by itself" means: nobody has told the QEMU anything since.
"""
import contextlib
import os
import shutil
import socket

import pytest

import drover
import raw_qemu
from raw_qemu import IMAGE_SIZE, Pair

PROGRAMS = raw_qemu.programs()


@pytest.fixture(params=PROGRAMS)
def program(request):
	if not PROGRAMS[request.param]:
		pytest.skip(f'no QEMU {request.param} in DROVER_QEMUS')
	return PROGRAMS[request.param]


@pytest.fixture
def new_pair(program):
	with contextlib.ExitStack() as stack:
		directory = drover.new_root()
		stack.callback(shutil.rmtree, directory)

		def make(words='hz=100 ws=4 rate=4', **how):
			pair = Pair((program, program), directory, words, **how)
			stack.callback(pair.close)
			return pair
		yield make


@pytest.fixture
def pair(new_pair):
	return new_pair()


def slow_down(pair):
	"""The migration goes on until speed_up(), also in postcopy."""
	pair.source.ask('migrate-set-parameters', max_bandwidth=1 << 16, max_postcopy_bandwidth=1 << 16)


def speed_up(pair):
	pair.source.ask('migrate-set-parameters', max_bandwidth=1 << 30, max_postcopy_bandwidth=0)


def old(pair):
	"""As 5.2 and 7.2; what lies between 7.2 and 10.0 was not looked at."""
	return pair.source.version() < (10, 0)


def runs_by_itself(pair):
	pair.source.wait_migration('failed', 'cancelled')
	pair.source.wait_status('running')
	pair.source.counts_on()
	assert pair.source.may_write(pair.images[0])
	pair.check_guest()


# ---- a switch that fails ----

def test_a_source_whose_target_dies_before_migrate_continue_runs_on_by_itself(pair):
	pair.both('return-path')
	pair.to_switch()
	assert pair.source.status() == 'finish-migrate'
	pair.target.kill()
	pair.go_on()
	runs_by_itself(pair)


@pytest.mark.parametrize('cut', ['stream', 'target'])
def test_a_source_that_fails_in_the_device_phase_runs_on_by_itself(pair, cut):
	pair.to_switch(narrow=True)
	pair.get_stuck()
	if cut == 'stream':
		pair.break_stream()
	else:
		pair.target.kill()
	runs_by_itself(pair)
	assert 'device' in pair.source.migrations_heard()


def test_stop_before_the_switch_keeps_a_failed_source_stopped(pair):
	slow_down(pair)
	pair.source.capabilities('pause-before-switchover')
	pair.migrate(narrow=True)
	pair.source.wait_migration('active')
	pair.source.ask('stop')
	speed_up(pair)
	pair.source.wait_migration('pre-switchover')
	before = pair.source.ticks()
	pair.get_stuck()
	pair.break_stream()
	pair.source.wait_migration('failed')
	# Not the runstate but only the migration tells a failed from a completed one here.
	pair.source.wait_status('postmigrate' if old(pair) else 'paused')
	assert pair.source.ticks() == before
	pair.source.ask('cont')
	runs_by_itself(pair)


def test_stop_at_pre_switchover_does_not_keep_a_failed_source_stopped(pair):
	pair.to_switch(narrow=True)
	pair.source.ask('stop')
	pair.get_stuck()
	pair.break_stream()
	runs_by_itself(pair)


def test_a_source_stuck_in_the_switch_neither_answers_nor_can_be_cancelled(pair):
	pair.to_switch(narrow=True)
	pair.get_stuck()
	pair.source.tell('migrate_cancel')
	assert pair.source.silent()
	assert pair.source.migrations_heard()[-1] == 'device'
	pair.break_stream()
	runs_by_itself(pair)


# ---- a switch that succeeds ----

def test_completed_without_return_path_does_not_say_that_the_target_has_read_all(pair):
	pair.target.capabilities('late-block-activate')
	pair.to_switch()
	pair.target.freeze()
	pair.go_on()
	pair.source.wait_migration('completed')
	pair.target.thaw()
	pair.target.wait_migration('completed')


def test_without_return_path_completed_may_be_said_of_a_dead_target(pair):
	pair.to_switch()
	pair.target.kill()
	pair.go_on()
	pair.source.wait_migration('failed', 'completed')
	if pair.source.migration() == 'completed':
		assert pair.source.version() > (11, 0)
		pair.source.ask('cont')
	pair.source.wait_status('running')
	pair.source.counts_on()
	pair.check_guest()


def test_with_return_path_the_source_waits_for_the_target(pair):
	pair.both('return-path')
	pair.target.capabilities('late-block-activate')
	pair.to_switch()
	pair.target.freeze()
	pair.go_on()
	pair.source.wait_status('postmigrate', 'finish-migrate')
	assert pair.source.migration() != 'completed'
	pair.target.thaw()
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')


def test_completed_is_final(pair):
	pair.migrate()
	pair.source.wait_migration('completed')
	pair.source.wait_status('postmigrate')
	before = pair.source.ticks()
	pair.target.kill()
	pair.source.ask('migrate_cancel')
	pair.break_stream()
	assert (pair.source.migration(), pair.source.status()) == ('completed', 'postmigrate')
	assert pair.source.ticks() == before
	assert not pair.source.may_write(pair.images[0])


def test_cont_from_postmigrate_activates_the_block_devices_again(pair):
	pair.target.capabilities('late-block-activate')
	pair.migrate()
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	assert not pair.source.may_write(pair.images[0]) and not pair.target.may_write(pair.images[1])
	pair.source.ask('cont')
	pair.source.counts_on()
	assert pair.source.may_write(pair.images[0]) and not pair.target.may_write(pair.images[1])
	pair.target.kill()
	pair.check_guest()


def test_a_target_is_not_continued_while_the_source_writes(pair):
	"""QEMU's own lock on the image, where there is one; 5.2 lets both write."""
	pair.target.capabilities('late-block-activate')
	pair.migrate()
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	pair.source.ask('cont')
	if pair.source.version() < (7, 2):
		pair.target.ask('cont')
		assert pair.source.may_write(pair.images[0]) and pair.target.may_write(pair.images[1])
	else:
		assert 'Failed to get "write" lock' in pair.target.refuses('cont')
		assert pair.target.status() == 'paused'


def test_a_target_started_with_S_stays_stopped_with_inactive_disks(pair):
	pair.target.capabilities('late-block-activate')
	pair.migrate()
	pair.target.wait_migration('completed')
	pair.target.wait_status('paused')
	assert not pair.target.may_write(pair.images[1])
	pair.target.ask('cont')
	assert pair.target.may_write(pair.images[1])
	pair.target.counts_on()
	pair.check_guest()


def test_without_late_block_activate_an_old_target_takes_the_disks_while_paused(pair):
	pair.migrate()
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	pair.target.wait_status('paused')
	assert pair.target.may_write(pair.images[1]) == old(pair)


# ---- postcopy ----

def check_guest_after_postcopy(pair):
	"""With 11.1 one guest in ten goes on with pages from a moment before the switch (docs/QEMU.md)."""
	if pair.source.version() < (11, 0):
		pair.check_guest()


def start_postcopy(pair, stop):
	pair.target.capabilities('late-block-activate', 'postcopy-ram')
	pair.source.capabilities('postcopy-ram')
	slow_down(pair)
	pair.migrate()
	pair.source.wait_migration('active')
	if stop:
		pair.source.ask('stop')
	pair.source.ask('migrate-start-postcopy')
	pair.target.wait_migration('postcopy-active', 'completed')
	pair.target.wait_status('paused')


@pytest.mark.parametrize('stop', [True, False])
def test_a_postcopy_target_started_with_S_waits_and_old_ones_take_the_disks(pair, stop):
	start_postcopy(pair, stop)
	assert pair.target.ticks() == 0
	assert pair.target.may_write(pair.images[1]) == old(pair)
	assert not pair.source.may_write(pair.images[0])
	pair.target.ask('cont')
	pair.target.counts_on()
	assert pair.target.may_write(pair.images[1])
	speed_up(pair)
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	assert pair.source.status() == 'postmigrate'
	check_guest_after_postcopy(pair)


PACKAGED = b'\x08\x00\x07\x00\x04'  # the command that the postcopy switch begins with


def read_until(stream, pattern):
	seen = b''
	while pattern not in seen:
		data = stream.recv(256)
		assert data, 'the source closed the stream'
		seen = seen[-len(pattern):] + data


@pytest.mark.parametrize('stop', [True, False])
def test_a_source_whose_postcopy_switch_fails_stays_stopped_if_it_was_stopped_first(pair, stop):
	pair.source.capabilities('postcopy-ram')
	slow_down(pair)
	ours, theirs = pair.connect(narrow=True)
	pair.send(ours)
	pair.source.wait_migration('active')
	if stop:
		pair.source.ask('stop')
	before = pair.source.ticks()
	pair.source.ask('migrate-start-postcopy')
	read_until(theirs, PACKAGED)
	pair.source.wait(pair.source.silent, 'it is stuck')
	theirs.close()
	pair.source.wait_migration('failed')
	if old(pair):
		pair.source.wait_status('postmigrate')
	else:
		pair.source.wait_status('paused' if stop else 'running')
	if stop:
		assert pair.source.ticks() == before


def test_a_postcopy_whose_stream_breaks_pauses_and_goes_on_over_another(pair):
	"""Out of band and with a descriptor given before: the target's vcpu waits for a page, maybe in
	the middle of a device, and then nothing else is answered."""
	start_postcopy(pair, True)
	for qemu, end in zip((pair.source, pair.target), socket.socketpair()):
		qemu.give('again', end)
	pair.target.ask('cont')
	pair.break_stream()
	pair.source.hears('postcopy-paused')
	pair.target.hears('postcopy-paused')
	pair.target.ask('migrate-recover', how='exec-oob', uri='fd:again')
	speed_up(pair)
	pair.source.ask('migrate', uri='fd:again', resume=True)
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	assert pair.source.status() == 'postmigrate'
	pair.target.counts_on()
	check_guest_after_postcopy(pair)


# ---- TLS over descriptors ----

def give_key(qemu, endpoint, key, directory):
	directory = directory / f'{endpoint}-key'
	directory.mkdir(mode=0o700)
	(directory / 'keys.psk').write_text(f'drover:{key}\n', encoding='ascii')
	extra = {'username': 'drover'} if endpoint == 'client' else {}
	qemu.ask('object-add', qom_type='tls-creds-psk', id='tls0', endpoint=endpoint,
		dir=str(directory), **extra)
	qemu.ask('migrate-set-parameters', tls_creds='tls0', tls_hostname='drover')


def encrypt(pair, directory, *keys):
	give_key(pair.source, 'client', keys[0], directory)
	give_key(pair.target, 'server', keys[-1], directory)


def test_a_stream_over_a_descriptor_can_be_under_tls_with_a_shared_key(pair, tmp_path):
	encrypt(pair, tmp_path, 'ab' * 32)
	ours, theirs = pair.connect()
	look = theirs.dup()
	pair.send(ours)
	assert look.recv(3, socket.MSG_PEEK) == b'\x16\x03\x01', 'no TLS handshake'
	pair.target.give('stream', theirs)
	pair.target.ask('migrate-incoming', uri='fd:stream')
	pair.source.wait_migration('completed')
	pair.target.wait_migration('completed')
	pair.target.ask('cont')
	pair.target.counts_on()
	pair.check_guest()


PAIRS = [(source, target) for source in PROGRAMS for target in PROGRAMS]


@pytest.mark.parametrize('source,target', PAIRS)
def test_a_guest_goes_from_each_version_to_each_under_tls(source, target, tmp_path):
	for version in source, target:
		if not PROGRAMS[version]:
			pytest.skip(f'no QEMU {version} in DROVER_QEMUS')
	pair = Pair((PROGRAMS[source], PROGRAMS[target]), tmp_path, 'hz=100 ws=4 rate=4')
	with contextlib.closing(pair):
		encrypt(pair, tmp_path, 'ab' * 32)
		pair.target.capabilities('late-block-activate')
		pair.to_switch()
		pair.go_on()
		pair.source.wait_migration('completed')
		if (source, target) == ('10.0', '11.1'):  # a disk of theirs that does not fit: docs/QEMU.md
			assert pair.target.ended() == 1
			return
		pair.target.wait_migration('completed')
		pair.target.ask('cont')
		pair.target.counts_on()
		pair.check_guest()


def test_a_wrong_key_is_refused(pair, tmp_path):
	encrypt(pair, tmp_path, 'ab' * 32, 'cd' * 32)
	pair.migrate()
	runs_by_itself(pair)
	assert pair.target.status() == 'inmigrate'
	assert 'TLS handshake failed' in pair.target.said.read_text(encoding='utf-8')


def test_under_tls_a_descriptor_that_blocks_blocks_the_source_until_the_target_speaks(pair, tmp_path):
	encrypt(pair, tmp_path, 'ab' * 32)
	ours, theirs = pair.connect()
	pair.source.give('stream', ours)
	pair.source.tell('migrate', uri='fd:stream')
	assert pair.source.silent()
	theirs.close()
	runs_by_itself(pair)


# ---- disks mirrored over NBD ----

def mirror(pair, directory):
	"""The source's disk is mirrored to the target's and ready; streams are descriptors here too."""
	listener = socket.socket(socket.AF_UNIX)
	listener.bind(str(directory / 'nbd.sock'))
	listener.listen(1)
	connected = socket.socket(socket.AF_UNIX)
	connected.connect(str(directory / 'nbd.sock'))
	pair.target.give('nbd', listener)
	pair.target.ask('nbd-server-start', addr={'type': 'fd', 'data': {'str': 'nbd'}})
	pair.target.ask('block-export-add', type='nbd', id='export', node_name='disk', name='disk',
		writable=True)
	pair.connection = connected.dup()
	pair.source.give('nbd', connected)
	pair.source.ask('blockdev-add', driver='nbd', node_name='remote', export='disk',
		server={'type': 'fd', 'str': 'nbd'})
	pair.source.ask('blockdev-mirror', job_id='mirror', device='disk', target='remote', sync='full',
		copy_mode='write-blocking')
	pair.source.wait_event('BLOCK_JOB_READY', device='mirror')


def end_mirror(pair):
	pair.source.ask('block-job-cancel', device='mirror')
	pair.source.wait_event('BLOCK_JOB_COMPLETED', device='mirror')
	pair.source.ask('blockdev-del', node_name='remote')


def fill(image):
	content = os.urandom(IMAGE_SIZE)
	image.write_bytes(content)
	return content


@pytest.fixture
def mirrored(new_pair, tmp_path):
	"""Both at pre-switchover, each with a disk of its own; the mirror still runs."""
	pair = new_pair(shared=False)
	pair.content = fill(pair.images[0])
	pair.target.capabilities('late-block-activate')
	mirror(pair, tmp_path)
	pair.to_switch()
	return pair


def test_a_mirror_ended_at_pre_switchover_and_its_export_closed_before_cont(mirrored):
	end_mirror(mirrored)
	mirrored.target.ask('nbd-server-stop')
	mirrored.go_on()
	mirrored.source.wait_migration('completed')
	mirrored.target.wait_migration('completed')
	mirrored.target.ask('cont')
	mirrored.target.counts_on()
	assert mirrored.images[1].read_bytes() == mirrored.content
	mirrored.check_guest()


def test_cont_with_the_export_open_is_not_refused_but_grumbled_at(mirrored):
	end_mirror(mirrored)
	mirrored.go_on()
	mirrored.source.wait_migration('completed')
	mirrored.target.wait_migration('completed')
	mirrored.target.ask('cont')
	mirrored.target.counts_on()
	said = mirrored.target.said.read_text(encoding='utf-8')
	assert ("Permission conflict on node 'disk'" in said) == (mirrored.target.version() > (7, 0))


def test_a_switch_with_the_mirror_at_work_is_not_refused(mirrored):
	mirrored.go_on()
	mirrored.source.wait_migration('completed')
	[job] = mirrored.source.ask('query-block-jobs')
	assert job['device'] == 'mirror'


def test_the_node_of_a_mirror_is_not_deleted_under_a_silent_target_until_its_connection_is_shut(mirrored):
	source = mirrored.source
	source.ask('block-job-cancel', device='mirror', force=True)
	source.wait_event('BLOCK_JOB_CANCELLED', device='mirror')
	mirrored.target.freeze()
	source.tell('blockdev-del', node_name='remote')
	assert source.silent()
	mirrored.connection.shutdown(socket.SHUT_RDWR)
	source.wait(lambda: 'remote' not in {node['node-name'] for node in source.ask('query-named-block-nodes')},
		'the node is gone')
	source.ask('migrate_cancel')
	source.counts_on()


# ---- cancel, and a target that does nothing ----

def cancelled(pair):
	pair.source.ask('migrate_cancel')
	pair.source.wait_migration('cancelled')
	runs_by_itself(pair)


def test_cancel_in_a_tls_handshake_ends_only_when_its_stream_is_shut(pair, tmp_path):
	encrypt(pair, tmp_path, 'ab' * 32)
	ours, theirs = pair.connect()
	with theirs:
		pair.send(ours)
		assert pair.source.migration() == 'setup'
		pair.source.ask('migrate_cancel')
		pair.source.counts_on()
		assert pair.source.migration() in ('cancelling', 'cancelled')
		pair.break_stream()
		runs_by_itself(pair)


def test_cancel_while_memory_is_sent(pair):
	slow_down(pair)
	pair.migrate()
	pair.source.wait_migration('active')
	cancelled(pair)
	assert pair.target.ended() == 1


def test_cancel_at_pre_switchover(pair):
	pair.to_switch()
	cancelled(pair)
	assert pair.target.ended() == 1


def test_a_source_cancelled_while_it_waits_for_the_return_path_runs_on_beside_a_loaded_target(pair):
	"""So what a target has read says nothing about what the source does."""
	pair.both('return-path')
	pair.target.capabilities('late-block-activate')
	pair.to_switch()
	pair.target.freeze()
	pair.go_on()
	# Before that moment a cancel leaves some sources with inactive disks, and others stuck.
	pair.source.wait(lambda: not pair.source.may_write(pair.images[0]), 'disks are inactive')
	cancelled(pair)
	pair.target.thaw()
	pair.target.wait_migration('completed')
	pair.target.wait_status('paused')


def test_cancel_in_postcopy_is_refused_by_new_ones_and_loses_the_guest_with_old_ones(pair):
	start_postcopy(pair, True)
	if old(pair):
		pair.source.ask('migrate_cancel')
		pair.source.wait_migration('cancelled')
		pair.source.wait_status('postmigrate')
	else:
		assert 'cannot cancel' in pair.source.refuses('migrate_cancel')


def test_a_source_that_was_cancelled_migrates_to_a_new_target(pair):
	pair.to_switch()
	cancelled(pair)
	assert pair.target.ended() == 1
	pair.new_target()
	pair.to_switch()
	pair.go_on()
	pair.target.wait_migration('completed')
	pair.target.ask('cont')
	pair.target.counts_on()
	pair.check_guest()


def test_a_migration_to_a_frozen_target_stays_active_until_it_is_cancelled(new_pair):
	pair = new_pair(words='hz=100 ws=16 rate=64')
	ours, theirs = pair.connect(narrow=True)
	pair.target.give('stream', theirs)
	pair.target.ask('migrate-incoming', uri='fd:stream')
	pair.target.freeze()
	pair.send(ours)

	def sent():
		return pair.source.ask('query-migrate').get('ram', {}).get('transferred')

	def stalled():
		before = sent()
		pair.source.counts_on()
		return before and before == sent()
	drover.wait(stalled, 'nothing is sent any more')
	assert pair.source.migration() == 'active'
	cancelled(pair)
