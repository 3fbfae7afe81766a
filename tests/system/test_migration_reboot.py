# SPDX-License-Identifier: Apache-2.0
"""The target's host goes down while disks are on their way to it.  RUN is memory and empty afterwards;
only the owner record says which of the files are a disk, and which are nothing any more."""
import shutil
import signal

import pytest

from drover import micro
from journey import make_cluster, wait_runs_on
from test_kill import has_checkpoints

pytestmark = pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')


def crash(host):
	"""All that a host loses when its power fails; its disk stays."""
	host.kill_agent()
	for process in (host.keeper('m1'), host.qemu('m1')):
		if process:
			process.kill()
	shutil.rmtree(host.run)
	shutil.rmtree(host.host_dir, ignore_errors=True)


def arriving(host):
	return sorted((host.lib / 'volumes/m1').glob('.*.arriving.raw'))


def test_disks_that_were_on_their_way_to_a_host_that_crashed_do_not_stay_there(new_host, tmp_path):
	pair = alpha, beta = make_cluster(new_host, tmp_path)
	alpha.apply(micro('m1', disk=1))
	alpha.wait_state('m1', 'running')
	alpha.hold_at('keeper.source.copying')
	alpha.cli('migrate', 'm1', '--to', 'beta', '--no-wait')
	keeper = alpha.held('keeper.source.copying')
	assert arriving(beta), 'it is being filled'
	crash(beta)
	alpha.cli('migrate', 'm1', '--cancel', '--no-wait')
	alpha.hold_at()
	keeper.signal(signal.SIGCONT)
	beta.start_agent()
	beta.wait(lambda: not arriving(beta), 'it is gone')
	beta.wait(lambda: not beta.left(), 'nothing is left')
	wait_runs_on(pair, 'm1', alpha)
	# And it can come, as if nothing had been.
	alpha.cli('migrate', 'm1', '--to', 'beta', '--timeout', '120s')
	wait_runs_on(pair, 'm1', beta)
	beta.wait(lambda: not arriving(beta) and (beta.lib / 'volumes/m1/root.raw').exists(), 'its disk is there')


def test_a_disk_that_had_come_before_its_host_crashed_is_the_disk_it_boots_from(new_host, tmp_path):
	"""The record was taken, and the file had not its name yet: nothing else may get that name."""
	pair = alpha, beta = make_cluster(new_host, tmp_path)
	alpha.apply(micro('m1', disk=1))
	alpha.wait_state('m1', 'running')
	beta.hold_at('keeper.migration.cont')
	alpha.cli('migrate', 'm1', '--to', 'beta', '--no-wait')
	beta.held('keeper.migration.cont')
	[file] = arriving(beta)
	inode = file.stat().st_ino
	crash(beta)
	beta.start_agent()
	wait_runs_on(pair, 'm1', beta)
	assert (beta.lib / 'volumes/m1/root.raw').stat().st_ino == inode
	assert not arriving(beta)
