# SPDX-License-Identifier: Apache-2.0
"""A target that cannot let a guest in: whoever waits for the move is told its own sentence at once, every
node shows it, others are let in meanwhile, and the guest comes when what was missing is there."""
import shutil

import pytest

import drover
from drover import micro
from journey import Witness, make_cluster, timelines, wait_runs_on

LONG = ('--timeout', '120s')
KERNEL = drover.build_dir() / 'tests/guest/micro/micro.elf'


def remove_kernel(_, directory):
	(directory / 'kernel').unlink()
	return f"'{directory}/kernel'"


def remove_qemu(_, directory):
	(directory / 'qemu').unlink()
	return f"'{directory}/qemu'"


def spoil_volumes(beta, _):
	there = beta.lib / 'volumes'
	if there.is_dir():
		there.rmdir()
	there.write_text('no directory\n')
	return 'a directory is needed there'


def cluster(new_host, directory, names=('alpha', 'beta'), **config):
	"""Kernel and QEMU are names that a test can take away; what runs does not need them any more."""
	shutil.copy(KERNEL, directory / 'kernel')
	(directory / 'qemu').symlink_to(shutil.which('qemu-system-x86_64'))
	return make_cluster(new_host, directory, names, qemu={'binary': str(directory / 'qemu')}, **config)


def guest(directory, name='m1', **parameters):
	return micro(name, kernel=str(directory / 'kernel'), **parameters)


@pytest.mark.parametrize('spoil', [remove_kernel, remove_qemu, spoil_volumes])
def test_who_waits_for_a_move_is_told_what_the_target_lacks(new_host, tmp_path, spoil):
	alpha, beta = pair = cluster(new_host, tmp_path)
	alpha.apply(guest(tmp_path, disk=1))
	alpha.wait_state('m1', 'running')
	with Witness(pair, 'm1') as witness:
		missing = spoil(beta, tmp_path)
		shown = alpha.drover('migrate', 'm1', '--to', 'beta', *LONG)
		assert shown.rc == 1, shown
		assert "VM 'm1' does not come to node 'beta': " in shown.err and missing in shown.err, shown
		assert '; it stays on node' in shown.err and '--cancel' in shown.err, shown
		witness.check(moves=0)
	if (beta.lib / 'volumes').is_file():
		(beta.lib / 'volumes').unlink()
	alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
	beta.wait(lambda: not beta.left(), 'nothing is left there')


def test_every_node_shows_what_is_missing_until_it_is_there(new_host, tmp_path):
	hosts = alpha, beta, gamma = cluster(new_host, tmp_path, ('alpha', 'beta', 'gamma'))
	alpha.apply(guest(tmp_path))
	alpha.wait_state('m1', 'running')
	remove_kernel(beta, tmp_path)
	assert alpha.drover('migrate', 'm1', '--to', 'beta', *LONG).rc == 1
	for host in hosts:
		host.wait(lambda h=host: 'kernel' in (h.vm('m1')['reason'] or ''), f'{host.name} shows it')
		assert host.vm('m1')['state'] == 'running' and host.vm('m1')['node'] == 'alpha'
		said = host.cli('explain', 'm1').out
		assert 'That node cannot let it in: ' in said and f'{tmp_path}/kernel' in said, said
		host.wait(lambda h=host: 'cannot let it in' in (said := h.cli('ls').out) or 'does not come' in said,
			'the list has it')
	for host in (alpha, beta):
		[line] = host.cli('migrations', 'm1', '--format', 'json').json()
		assert (line['role'], line['node'], line['result']) == ('target', 'beta', 'failed'), line
		assert f'{tmp_path}/kernel' in line['why'], line
	# The order stands; said again, it is tried again at once.
	shutil.copy(KERNEL, tmp_path / 'kernel')
	alpha.cli('migrate', 'm1', '--to', 'beta', *LONG)
	wait_runs_on(hosts, 'm1', beta)
	for host in hosts:
		host.wait(lambda h=host: 'let it in' not in (h.vm('m1')['reason'] or ''), 'it is forgotten')
	assert len(timelines(beta, 'm1')) == 2, 'one line for all tries that said the same'


def test_a_move_that_was_called_off_leaves_no_obstacle(new_host, tmp_path):
	pair = alpha, beta = cluster(new_host, tmp_path)
	alpha.apply(guest(tmp_path))
	alpha.wait_state('m1', 'running')
	remove_kernel(beta, tmp_path)
	assert alpha.drover('migrate', 'm1', '--to', 'beta', *LONG).rc == 1
	alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
	for host in pair:
		host.wait(lambda h=host: not h.vm('m1')['reason'], 'nothing is said against it any more')
	beta.wait(lambda: not beta.left(), 'nothing is left there')


def test_one_that_cannot_come_keeps_no_other_out(new_host, tmp_path):
	"""There is one place, and it is not kept for what waits before it tries again."""
	pair = alpha, beta = cluster(new_host, tmp_path, timers={'migration_offer': '720h', 'backoff_first': '1h',
		'backoff_max': '1h'}, migration={'incoming': 1})
	alpha.apply(guest(tmp_path), micro('m2'))
	for name in ('m1', 'm2'):
		alpha.wait_state(name, 'running')
	remove_kernel(beta, tmp_path)
	assert alpha.drover('migrate', 'm1', '--to', 'beta', *LONG).rc == 1
	alpha.cli('migrate', 'm2', '--to', 'beta', *LONG)
	wait_runs_on(pair, 'm2', beta)
	shutil.copy(KERNEL, tmp_path / 'kernel')
	alpha.cli('migrate', 'm1', '--to', 'beta', *LONG)
	wait_runs_on(pair, 'm1', beta)
