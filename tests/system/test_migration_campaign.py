# SPDX-License-Identifier: Apache-2.0
"""A short run of ./migration_campaign; the long ones are told of in docs/FAULTS.md."""
import pathlib
import subprocess

import pytest

from test_kill import has_checkpoints

CAMPAIGN = pathlib.Path(__file__).with_name('migration_campaign')


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_sixty_random_migrations():
	"""On two and three hosts with networks of their own; the guest has no disk, one that comes along, or
	one that is shared."""
	done = subprocess.run([CAMPAIGN, '--seed', '1', '--rounds', '60', '--longest', '3', '--disks', 'none,local,shared',
		'--nodes', '2,3', '--hosts', 'namespaces'], capture_output=True, text=True, check=False, timeout=900)
	print(done.stdout[-30000:], done.stderr[-4000:])
	assert done.returncode == 0
	assert 'seed 1: 60 migrations in ' in done.stdout
