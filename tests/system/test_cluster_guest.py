# SPDX-License-Identifier: Apache-2.0
"""What goes through to a guest on another node: its console, and commands of its agent."""
import subprocess

import drover
from test_cluster import new_node, pair  # noqa: F401 (fixtures)


def test_console_and_exec_reach_a_guest_on_another_node(pair, linux_slot):
	alpha, beta = pair
	alpha.apply(drover.linux('tux', kvm_host='beta'))
	alpha.cli('guest', 'tux', 'guest-ping', '--timeout', '120s', timeout=180)
	assert alpha.cli('exec', 'tux', '--', 'echo', 'there').out == 'there\n'
	client = subprocess.Popen(alpha.argv('console', 'tux'), stdin=subprocess.PIPE,
		stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=alpha.environment)
	client.stdin.write(b"\nprintf 'sum=%s \\377\\001 end\\n' $((40 + 2))\n")
	client.stdin.flush()
	seen = b''
	while b'sum=42 \xff\x01 end' not in seen:
		more = client.stdout.read1(4096)
		assert more, f'the console ended: {seen}'
		seen += more
	assert list(alpha.run.glob('console-*')) == [], 'its door is closed behind it'
	client.terminate()
	client.communicate()
	beta.cli('kill', 'tux')
	refused = alpha.drover('console', 'tux')
	assert refused.rc == 75 and 'no QEMU' in refused.err


def test_the_console_of_a_node_that_goes_away_ends(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('v1', kvm_host='beta'))
	client = subprocess.Popen(alpha.argv('console', 'v1'), stdin=subprocess.PIPE,
		stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=alpha.environment)
	seen = b''
	while b'C ' not in seen:
		seen += client.stdout.read1(4096)
	beta.kill_agent()
	client.stdin.close()
	while client.stdout.read1(65536):
		pass
	assert client.wait(drover.DEADLINE) == 0
	beta.start_agent()
