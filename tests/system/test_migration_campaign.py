# SPDX-License-Identifier: Apache-2.0
"""Short runs of ./migration_campaign; the long ones are told of in docs/FAULTS.md."""
import pathlib
import subprocess

import pytest

from test_kill import has_checkpoints

CAMPAIGN = pathlib.Path(__file__).with_name('migration_campaign')


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
@pytest.mark.parametrize('seed,disks,nodes', [(1, 'none', 3), (3, 'shared', 2)])
def test_random_migrations(seed, disks, nodes):
	done = subprocess.run([CAMPAIGN, '--seed', str(seed), '--rounds', '20', '--seconds', '25', '--disks', disks,
		'--nodes', str(nodes)], capture_output=True, text=True, check=False, timeout=300)
	print(done.stdout[-30000:], done.stderr[-4000:])
	assert done.returncode == 0
	assert f'seed {seed}: ' in done.stdout
