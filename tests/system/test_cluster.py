# SPDX-License-Identifier: Apache-2.0
"""Nodes that become a cluster: authority, tokens, certificates and their renewal, between agents that
share the embedded store of one machine."""
import datetime
import json
import os
import pty
import socket
import ssl
import stat
import subprocess

import pytest

import drover

pytestmark = pytest.mark.asan


def free_port():
	with socket.socket() as probe:
		probe.bind(('127.0.0.1', 0))
		return probe.getsockname()[1]


@pytest.fixture
def new_node(new_host, tmp_path):
	"""Makes hosts whose agents share one store."""
	def make(name, store='store', life='2160h', **config):
		host = new_host(name, store=f'local:{tmp_path}/{store}.db', cluster={
			'address': '127.0.0.1', 'port': free_port(), 'certificate_life': life}, **config)
		return host.start_agent()
	return make


def status(host):
	return host.drover('--format', 'json', 'cluster', 'status').json()


def token_of(host, *words):
	done = host.drover('cluster', 'token', *words)
	assert done.rc == 0, done
	return done.out.strip()


def join(host, token):
	return host.drover('cluster', 'join', input=token.encode())


@pytest.fixture
def pair(new_node):
	alpha, beta = new_node('alpha'), new_node('beta')
	assert alpha.drover('cluster', 'init').rc == 0
	done = join(beta, token_of(alpha))
	assert done.rc == 0, done
	alpha.wait(lambda: all(member['address'] for member in status(alpha)['members']),
		'both have told where they are')
	return alpha, beta


def test_a_node_joins_with_a_token_and_both_know_it(pair):
	alpha, beta = pair
	seen = status(alpha)
	assert seen['cluster'] == status(beta)['cluster'] and seen['authority'] == 'alpha'
	assert [(member['name'], member['alive'], member['authority']) for member in seen['members']] \
		== [('alpha', True, True), ('beta', True, False)]
	assert status(beta)['not_served'] is None and status(beta)['certificate']['trouble'] is None


def test_connections_that_say_nothing_keep_nobody_out(pair, new_node):
	alpha, _ = pair
	gamma, token = new_node('gamma'), token_of(alpha)
	[address] = [member['address'] for member in status(alpha)['members'] if member['name'] == 'alpha']
	host, _, port = address.rpartition(':')
	idle = [socket.create_connection((host, int(port)), source_address=('127.0.0.2', 0))
		for _ in range(64)]
	done = join(gamma, token)
	assert done.rc == 0, done
	for end in idle:
		end.close()


def test_keys_are_for_root_only_and_the_authority_stays_where_it_was_made(pair):
	alpha, beta = pair
	for host, name in (alpha, 'node.pem'), (alpha, 'ca-key.pem'), (beta, 'node.pem'):
		assert stat.S_IMODE(os.stat(host.lib / 'tls' / name).st_mode) == 0o600
	assert stat.S_IMODE(os.stat(alpha.lib / 'tls').st_mode) == 0o700
	assert not (beta.lib / 'tls/ca-key.pem').exists()


def test_a_token_is_good_once_and_kept_as_a_hash(pair, new_node):
	alpha, _ = pair
	gamma, delta = new_node('gamma'), new_node('delta')
	token = token_of(alpha)
	secret = token.split('/')[2]
	assert secret not in (alpha.lib / 'tls/tokens.json').read_text()
	assert join(gamma, token).rc == 0
	again = join(delta, token)
	assert again.rc == 69 and 'was used before' in again.err
	for host in alpha, gamma, delta:
		assert secret not in (host.log / 'droverd.log').read_text()
		assert secret not in (host.log / 'events.jsonl').read_text()


def test_a_token_for_a_node_is_for_no_other_and_lets_that_one_in_again(pair, new_node):
	alpha, beta = pair
	gamma = new_node('gamma')
	token = token_of(alpha, 'beta')
	wrong = join(gamma, token)
	assert wrong.rc == 69 and "for node 'beta'" in wrong.err
	# Its disk is lost: the cluster still has a member of that name.
	beta.stop_agent()
	for name in os.listdir(beta.lib / 'tls'):
		os.unlink(beta.lib / 'tls' / name)
	beta.start_agent()
	refused = join(beta, token_of(alpha))
	assert refused.rc == 69 and 'drover cluster token beta' in refused.err
	assert join(beta, token).rc == 0


def test_a_node_of_another_store_is_told_so_and_keeps_its_token(pair, new_node):
	alpha, _ = pair
	stranger = new_node('gamma', store='elsewhere')
	token = token_of(alpha)
	refused = join(stranger, token)
	assert refused.rc == 69 and "'store:'" in refused.err
	assert not (stranger.lib / 'tls/node.pem').exists()
	assert join(new_node('delta'), token).rc == 0


def test_a_store_has_one_cluster(pair, new_node):
	gamma = new_node('gamma')
	refused = gamma.drover('cluster', 'init')
	assert refused.rc == 69 and 'drover cluster join' in refused.err
	assert not (gamma.lib / 'tls').exists()


def test_nonsense_instead_of_a_token(new_node):
	alpha = new_node('alpha')
	assert join(alpha, 'nonsense').rc == 65
	assert alpha.drover('cluster', 'join', '/nonexistent').rc != 0
	assert alpha.drover('cluster', 'token').rc == 69


def test_without_an_address_there_is_no_cluster(new_host):
	alpha = new_host('alpha').start_agent()
	refused = alpha.drover('cluster', 'init')
	assert refused.rc == 69 and 'cluster: {address:' in refused.err


def test_certificates_are_renewed_in_time_without_a_restart(new_node):
	"""Neither of agents nor of keepers: a guest goes from one to the other when those are over under
	which both were started."""
	# Ten seconds are between the renewal and the end, for a machine that is busy.
	alpha, beta = new_node('alpha', life='30s'), new_node('beta')
	assert alpha.drover('cluster', 'init').rc == 0
	assert join(beta, token_of(alpha)).rc == 0
	alpha.apply(drover.micro('m1', kvm_host='alpha'))
	keeper = alpha.keeper('m1')
	first = max(status(host)['certificate']['until'] for host in (alpha, beta))
	for host in alpha, beta:
		host.wait(lambda: status(host)['certificate']['until'] > first, 'another certificate', 120)
		assert host.agent_process.alive
	drover.wait(lambda: datetime.datetime.now(datetime.UTC) > datetime.datetime.fromisoformat(first),
		'the first ones are over')
	assert alpha.keeper('m1') == keeper
	alpha.cli('migrate', 'm1', '--to', 'beta', '--timeout', '120s')
	assert beta.vm('m1')['state'] == 'running'


def test_a_node_whose_certificate_has_expired_joins_anew(new_node):
	alpha, beta = new_node('alpha', life='10s'), new_node('beta')
	assert alpha.drover('cluster', 'init').rc == 0
	assert join(beta, token_of(alpha)).rc == 0
	until = status(beta)['certificate']['until']
	beta.stop_agent()
	drover.wait(lambda: datetime.datetime.now(datetime.UTC)
		>= datetime.datetime.fromisoformat(until), 'its certificate is over')
	beta.start_agent()
	assert beta.drover('cluster', 'init').rc == 69
	beta.wait(lambda: join(beta, token_of(alpha, 'beta')).rc == 0, 'it is a member again')
	assert status(beta)['certificate']['until'] > until


def test_a_certificate_outlives_its_agent(pair):
	alpha, beta = pair
	before = status(beta)
	beta.kill_agent()
	beta.start_agent()
	after = status(beta)
	assert after['cluster'] == before['cluster'] and after['certificate'] == before['certificate']
	assert after['not_served'] is None


def test_who_leaves_is_no_member_and_the_authority_is_the_last_to_go(pair):
	alpha, beta = pair
	refused = alpha.drover('cluster', 'leave')
	assert refused.rc == 69 and 'last one' in refused.err
	assert beta.drover('cluster', 'leave').rc == 0
	assert not (beta.lib / 'tls').exists() and status(beta)['cluster'] is None
	assert [member['name'] for member in status(alpha)['members']] == ['alpha']
	assert alpha.drover('cluster', 'leave').rc == 0
	assert status(alpha)['members'] == []
	assert beta.drover('cluster', 'init').rc == 0


def test_a_node_that_is_gone_for_good_is_removed_by_another_one(pair, new_node):
	alpha, beta = pair
	refused = alpha.drover('cluster', 'leave', 'beta')
	assert refused.rc == 69 and 'is alive' in refused.err
	assert alpha.drover('cluster', 'leave', 'gamma').rc == 69
	beta.kill_agent()
	alpha.wait(lambda: alpha.drover('cluster', 'leave', 'beta').rc == 0, 'its session is over')
	assert [member['name'] for member in status(alpha)['members']] == ['alpha']
	# It comes back with its certificate, which is worth nothing now.
	beta.start_agent()
	gone = talk(alpha, member_context(beta), {'execute': 'ping', 'id': 1})
	assert gone == []


def test_a_token_is_good_for_an_hour(pair, new_node):
	alpha, _ = pair
	gamma = new_node('gamma')
	token = token_of(alpha)
	path = alpha.lib / 'tls/tokens.json'
	tokens = json.loads(path.read_text())
	for kept in tokens.values():
		kept['until'] -= 3600
	path.write_text(json.dumps(tokens))
	refused = join(gamma, token)
	assert refused.rc == 69 and 'hour is over' in refused.err


def member_context(host):
	"""TLS with the certificate of that node."""
	context = ssl.create_default_context(cafile=host.lib / 'tls/ca.pem')
	context.check_hostname = False
	context.load_cert_chain(host.lib / 'tls/node.pem')
	return context


def test_a_node_that_holds_a_vm_does_not_leave(pair):
	_, beta = pair
	beta.apply(drover.micro('held', kvm_host='beta'))
	refused = beta.drover('cluster', 'leave')
	assert refused.rc == 69 and "'held'" in refused.err


def talk(host, context, *messages):
	"""What an agent answers on its cluster port; [] when it closes the connection instead."""
	port = json.loads((host.etc / 'drover.yaml').read_text())['cluster']['port']
	answers = []
	try:
		with socket.create_connection(('127.0.0.1', port), drover.DEADLINE) as plain, \
				context.wrap_socket(plain) as tls:
			for message in messages:
				tls.sendall(json.dumps(message).encode() + b'\n')
				with tls.makefile('rb') as lines:
					answers.append(json.loads(lines.readline()))
	except (OSError, ValueError):
		pass
	return answers


def test_a_stranger_may_only_ask_to_join_and_a_former_member_nothing(pair):
	alpha, beta = pair
	stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
	stranger.check_hostname = False
	stranger.verify_mode = ssl.CERT_NONE
	[answer] = talk(alpha, stranger, {'execute': 'renew', 'id': 1, 'arguments': {'request': ''}})
	assert answer['error']['class'] == 'refused'
	[answer] = talk(alpha, stranger, {'execute': 'join', 'id': 1, 'arguments': {
		'node': 'gamma', 'secret': '0' * 32, 'request': ''}})
	assert answer['error']['class'] == 'refused' and 'token' in answer['error']['desc']
	# Where no authority is, a stranger is not even heard.
	assert talk(beta, stranger, {'execute': 'join', 'id': 1}) == []
	member = member_context(beta)
	[answer] = talk(alpha, member, {'execute': 'renew', 'id': 1, 'arguments': {'request': 'x'}})
	assert answer['error']['class'] == 'bad-data'
	assert beta.drover('cluster', 'leave').rc == 0
	alpha.wait(lambda: talk(alpha, member, {'execute': 'renew', 'id': 1}) == [],
		'a former member is sent away')


def nodes(host):
	return {node['name']: node for node in host.cli('--format', 'json', 'node', 'ls').json()}


def test_each_node_is_seen_from_each_other_one(pair):
	alpha, beta = pair
	alpha.wait(lambda: nodes(alpha)['beta'].get('cpu_models') and nodes(alpha)['beta']['store_usec'] > 0,
		'beta has told all of itself')
	seen = nodes(alpha)
	assert all(node['alive'] and node['mode'] == 'ready' for node in seen.values())
	told = alpha.cli('--format', 'json', 'node', 'status', 'beta').json()
	assert told['address'] == seen['beta']['address'] != seen['alpha']['address']
	for key in 'version', 'cpus', 'cpu_model', 'load', 'qemu', 'told', 'vms':
		assert key in told
	assert 'max' in told['cpu_models'], 'what QEMU itself says that it runs'
	assert {'total', 'available', 'booked', 'allocated', 'provisioned', 'free'} \
		<= set(told['memory_mib'])
	table = alpha.cli('node', 'ls').out
	assert 'beta' in table and {'PROVISIONED', 'ALLOCATED', 'FREE', 'QEMU', 'STORE'} <= set(table.split())
	text = alpha.cli('node', 'status', 'beta').out
	assert 'alive' in text and 'CPU models' in text and ' max ' in text and ' ms\n' in text
	refused = alpha.drover('node', 'status', 'gamma')
	assert refused.rc == 69 and 'drover node ls' in refused.err
	beta.cli('shutdown-all', '--yes')
	assert nodes(alpha)['beta']['mode'] == 'stopped'
	beta.stop_agent()
	alpha.wait(lambda: not nodes(alpha)['beta']['alive'], 'beta is known to be gone')


def test_pvc_S21_memory_of_guests_that_run_and_of_those_that_belong_here(pair):
	alpha, beta = pair
	beta.apply(drover.micro('up', kvm_host='beta'), drover.micro('down', memory=80, kvm_host='beta'))
	beta.cli('stop', 'down')
	alpha.wait(lambda: nodes(alpha)['beta']['memory_mib']['allocated'] == 64, 'what runs is told')
	memory = nodes(alpha)['beta']['memory_mib']
	assert (memory['provisioned'], memory['booked']) == (64 + 80, 64 + 512)
	assert memory['free'] == min(memory['total'] - memory['booked'], memory['available'])
	assert nodes(alpha)['alpha']['memory_mib']['provisioned'] == 0


def test_shutdown_all_asks_about_the_vms_of_its_node(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('here', kvm_host='alpha'), drover.micro('there', kvm_host='beta'))
	alpha.wait(lambda: [vm['state'] for vm in alpha.vms().values()] == ['running'] * 2, 'both run')
	main, terminal = pty.openpty()
	asked = subprocess.Popen(alpha.argv('shutdown-all'), stdin=terminal, stdout=subprocess.PIPE,
		stderr=subprocess.PIPE, env=alpha.environment, text=True)
	os.close(terminal)
	os.write(main, b'no\n')
	out, _ = asked.communicate(timeout=drover.DEADLINE)
	os.close(main)
	assert asked.returncode == 69 and '  here (running)\n' in out and 'there' not in out
	assert alpha.state('here') == 'running'


def test_pvc_S33_a_node_is_there_while_its_guests_end(new_node):
	"""For longer than a session lasts by itself: nobody may take a slow shutdown for a death."""
	alpha, beta = new_node('alpha', timers={'session': '8s'}), new_node('beta')
	assert alpha.drover('cluster', 'init').rc == 0
	assert join(beta, token_of(alpha)).rc == 0
	alpha.apply(drover.micro('m1', 'hz=50 power=ignore', kvm_host='alpha', graceful_timeout='10s'))
	ending = alpha.background('shutdown-all', '--yes', '--timeout', '100s')
	looked = 0
	while ending.poll() is None:
		assert nodes(beta)['alpha']['alive']
		looked += 1
	assert alpha.ended(ending).rc == 0 and looked > 1
	assert alpha.state('m1') == 'off' and nodes(beta)['alpha']['mode'] == 'stopped'


def listed(host, name, state):
	"""Waits until `drover ls` shows it so: by the records, without asking the node that has it."""
	def there():
		vm = host.vms()[name]
		return vm if vm['state'] == state else None
	return host.wait(there, f"VM '{name}' is listed as {state}")


def test_a_vm_is_seen_from_every_node(pair):
	alpha, beta = pair
	beta.apply(drover.micro('v1', kvm_host='beta'))
	pid = beta.wait_state('v1', 'running')['pid']
	seen = listed(alpha, 'v1', 'running')
	assert (seen['node'], seen['pid'], seen['wish']) == ('beta', pid, 'run')
	beta.cli('stop', 'v1')
	listed(alpha, 'v1', 'off')
	beta.cli('start', 'v1')
	listed(alpha, 'v1', 'running')
	alpha.kill_agent()
	alpha.start_agent()
	assert listed(alpha, 'v1', 'running')['node'] == 'beta'


def test_pvc_S29_a_node_that_hangs_holds_up_nobody(pair):
	alpha, beta = pair
	beta.agent_process.signal(drover.signal.SIGSTOP)
	try:
		assert alpha.cli('ls').rc == 0
		assert nodes(alpha)['alpha']['alive']
		assert status(alpha)['certificate']['trouble'] is None
	finally:
		beta.agent_process.signal(drover.signal.SIGCONT)
	beta.wait(beta.answers, 'it goes on')


def test_a_vm_whose_node_is_not_there_says_so(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('typo', kvm_host='bta'), drover.micro('later', kvm_host='beta', online=False))
	assert "node 'bta', which is away; 'drover node ls'" in listed(alpha, 'typo', 'off')['reason']
	beta.stop_agent()
	alpha.apply(drover.micro('later', kvm_host='beta'), args=['--no-wait'])
	alpha.wait(lambda: "node 'beta', which is away" in listed(alpha, 'later', 'off')['reason'], 'it says so')
	beta.start_agent()
	assert listed(alpha, 'later', 'running')['node'] == 'beta'


def test_a_request_goes_to_the_node_that_has_the_vm(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('v1', kvm_host='beta'))
	seen = alpha.vm('v1')
	assert (seen['state'], seen['node'], seen['pid']) == ('running', 'beta', beta.vm('v1')['pid'])
	assert alpha.cli('qmp', 'v1', 'query-status').json()['status'] == 'running'
	assert alpha.cli('hardware', 'v1').out == beta.cli('hardware', 'v1').out
	assert any('should run' in line for line in alpha.cli('explain', 'v1').out.splitlines())
	alpha.cli('pause', 'v1')
	assert beta.vm('v1')['state'] == 'paused' and 'uid 0 at alpha' in beta.vm('v1')['order']['by']
	alpha.cli('resume', 'v1')
	pid = beta.vm('v1')['pid']
	alpha.cli('restart', 'v1')
	assert alpha.vm('v1')['pid'] not in (None, pid)
	assert alpha.cli('logs', 'v1').out == beta.cli('logs', 'v1').out
	assert 'started' in alpha.cli('events', 'v1').out
	alpha.cli('monitor', 'v1', 'info status')
	alpha.cli('stop', 'v1')
	assert beta.vm('v1')['state'] == 'off'
	assert alpha.drover('exec', 'v1', '--', 'true').rc == 125
	alpha.cli('start', 'v1')
	refused = alpha.drover('rm', 'v1')
	assert refused.rc == 69 and 'drover stop v1' in refused.err
	alpha.cli('kill', 'v1')
	alpha.cli('rm', 'v1')
	assert beta.vm('v1') is None


def test_progress_of_a_routed_request_is_told_and_who_goes_away_stops_it(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('v1', kvm_host='beta'))
	follower = alpha.background('events', 'v1', '--follow', '--format', 'json')
	try:
		seen = json.loads(follower.stdout.readline())
		assert seen['vm'] == 'v1' and seen['node'] == 'beta'
		beta.cli('pause', 'v1')
		while 'paused' not in json.loads(follower.stdout.readline()).get('reason', ''):
			pass
	finally:
		follower.kill()
		follower.wait(drover.DEADLINE)
	beta.cli('resume', 'v1')


def test_a_node_that_does_not_answer_is_named(pair):
	alpha, beta = pair
	alpha.apply(drover.micro('v1', kvm_host='beta'))
	listed(alpha, 'v1', 'running')
	beta.agent_process.signal(drover.signal.SIGSTOP)
	try:
		failed = alpha.drover('qmp', 'v1', 'query-status')
		assert failed.rc == 75 and "node 'beta'" in failed.err and 'does not answer' in failed.err
		assert "'drover node status beta'" in failed.err, 'what to look at next'
		seen = alpha.drover('status', 'v1', '--format', 'json')
		assert seen.rc == 75
		assert 'last known state is running' in seen.json()['reason']
		told = alpha.cli('explain', 'v1').out
		assert "Whether VM 'v1' runs now is not known: node 'beta'" in told and 'does not answer' in told
		assert "By the store droverd lives on node 'beta'" in told, told
	finally:
		beta.agent_process.signal(drover.signal.SIGCONT)
	beta.wait(beta.answers, 'it goes on')
	beta.kill_agent()
	failed = alpha.drover('pause', 'v1')
	assert failed.rc == 75 and "node 'beta'" in failed.err
	assert "node 'beta' is away" in listed(alpha, 'v1', 'unknown')['reason']
	told = alpha.cli('explain', 'v1').out
	for sentence in ("Whether VM 'v1' runs now is not known: node 'beta'",
			"Node 'beta' has no session in the store: droverd there has ended",
			'What that node told last: running since 20', " ago.\n",
			"By the owner record only node 'beta' may run it (epoch 1)",
			"It belongs on node 'beta' ('kvm_host' in its definition"):
		assert sentence in told, told
	beta.start_agent()
	alpha.wait_state('v1', 'running')
	listed(alpha, 'v1', 'running')


def test_a_member_asks_only_what_is_about_a_vm(pair):
	alpha, beta = pair
	member = member_context(beta)
	for command in 'config', 'apply', 'shutdown-all', 'cluster-token', 'ensure', 'logs', 'join':
		[answer] = talk(alpha, member, {'execute': command, 'id': 1})
		assert answer['error']['class'] == 'refused', command
