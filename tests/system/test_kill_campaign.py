# SPDX-License-Identifier: Apache-2.0
"""A short run of ./campaign; the long ones are told of in docs/FAULTS.md."""
import pathlib
import subprocess

import pytest

import drover
from test_kill import has_checkpoints

CAMPAIGN = pathlib.Path(__file__).with_name('campaign')


@pytest.mark.slow
@pytest.mark.skipif(not has_checkpoints(), reason='this build has no checkpoints')
def test_thirty_random_rounds():
	done = subprocess.run([CAMPAIGN, '--seed', '2', '--rounds', '30', '--seconds', '75'],
		capture_output=True, text=True, check=False, timeout=300)
	print(done.stdout[-20000:], done.stderr[-4000:])
	assert done.returncode == 0
	assert drover.build_dir() and 'seed 2: ' in done.stdout
