# SPDX-License-Identifier: Apache-2.0
"""The agent when things are many, or go wrong around it."""
import json
import signal

from drover import micro


def test_a_directory_of_300_is_applied_in_one(host, tmp_path):
	for i in range(300):
		definition = {'name': f'vm{i}', 'parameters': {'online': False}}
		(tmp_path / f'vm{i}.yaml').write_text(json.dumps(definition))
	out = host.cli('apply', str(tmp_path)).out
	assert out.count(': created\n') == 300
	assert len(host.vms()) == 300
	assert host.cli('apply', str(tmp_path)).out.count(': unchanged\n') == 300


def test_a_follower_sees_what_was_logged_while_no_agent_was_connected(host):
	"""Every line of the keepers' file, once each, although three keepers wrote it."""
	host.apply(micro('m1'))
	follow = host.background('events', '--follow', '--format', 'json', '--lines', '10000')
	try:
		for _ in range(2):
			keeper = host.keeper('m1')
			keeper.kill()
			host.wait(lambda gone=keeper: host.keeper('m1') not in (None, gone),
				'another keeper is there')
			host.wait_state('m1', 'running')
		host.cli('kill', 'm1')
		host.wait(lambda: not host.keeper('m1'), 'the keeper has gone')
		host.cli('rm', 'm1')
	finally:
		host.wait(lambda: any(e['event'] == 'removed' for e in host.events()), 'rm is logged')
		follow.send_signal(signal.SIGINT)
		seen = host.ended(follow).out.splitlines()
	logged = host.text(host.vm_log('m1', 'events.jsonl')).splitlines()
	seen = [json.loads(line) for line in seen]
	for line in logged:
		assert seen.count(json.loads(line)) == logged.count(line), line
	assert len(logged) > 5
