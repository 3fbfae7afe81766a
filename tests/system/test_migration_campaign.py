# SPDX-License-Identifier: Apache-2.0
"""A short run of ./migration_campaign; the long ones are told of in docs/FAULTS.md."""
import pathlib
import subprocess

import pytest

import userfault
from test_kill import has_checkpoints

CAMPAIGN = pathlib.Path(__file__).with_name('migration_campaign')


def run(*options):
	done = subprocess.run([CAMPAIGN, '--hosts', 'namespaces', '--nodes', '2,3', '--longest', '3', *options],
		capture_output=True, text=True, check=False, timeout=900)
	print(done.stdout[-30000:], done.stderr[-4000:])
	assert done.returncode == 0
	return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_sixty_random_migrations():
	"""On two and three hosts with networks of their own; the guest has no disk, one that comes along, or
	one that is shared."""
	assert 'seed 1: 60 migrations in ' in run('--seed', '1', '--rounds', '60', '--disks', 'none,local,shared')


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_sixteen_random_migrations_with_postcopy():
	with userfault.right_to_handle_faults() as given:
		if not given:
			pytest.skip('vm.unprivileged_userfaultfd cannot be set here')
		done = run('--seed', '2', '--rounds', '16', '--disks', 'none,shared', '--postcopy', 'yes')
	assert 'seed 2: 16 migrations in ' in done
