# SPDX-License-Identifier: Apache-2.0
"""Definitions that come as events of Consul's keys, from `consul watch` or by the agent's own."""
import base64
import itertools
import json
import threading

import pytest

import consul
from drover import micro
from journey import make_cluster


def event(key, value, index):
	"""As Consul hands it out; a value that is no text is written as JSON."""
	text = value if isinstance(value, (str, bytes, type(None))) else json.dumps(value)
	data = text.encode() if isinstance(text, str) else text
	return {'Key': key, 'CreateIndex': 1, 'ModifyIndex': index, 'LockIndex': 0, 'Flags': 0,
		'Value': None if data is None else base64.b64encode(data).decode()}


def definition(name, machine='virtual', **parameters):
	made = micro(name)
	made['parameters'] |= {'machine': machine} | parameters
	return made


def node(name, index, **parameters):
	return event(f'node/{name}', definition(name, **parameters), index)


def feed(host, *events, rc=0):
	"""The result of each event, by its key; of several with one key the last."""
	done = host.cli('handle-consul-event', '--format', 'json', input=json.dumps(list(events)), rc=rc)
	return {result['key']: result for result in done.json()}


def generation(host, name):
	return host.vm(name)['generation']


def named(host, name):
	return [one for one in host.events() if one['event'] == name]


def logged(host):
	"""What the agent has logged, but for the ends of its own looks at QEMU, which come when they come."""
	return [line for line in host.agent_log().splitlines()
		if 'accelerator:' not in line and ' serves node ' not in line]


def test_fc_T35_an_empty_list_says_nothing(host):
	before = logged(host)
	for text in ('[]', 'null'):
		done = host.cli('handle-consul-event', input=text)
		assert not done.out and not done.err
	assert host.vms() == {} and logged(host) == before


def test_fc_T36_T39_what_is_not_for_us_is_ignored(host):
	results = feed(host, event('node/empty', None, 1), event('node/blank', '', 2),
		node('metal', 3, machine='physical'))
	assert {result['result'] for result in results.values()} == {'ignored'}
	assert not host.vms() and not named(host, 'consul-event-failed')


@pytest.mark.asan
def test_fc_T37_C3_C4_one_bad_event_stops_no_other(host):
	keyless = node('nameless', 4)
	del keyless['Key']
	bad = [keyless, event('node/text', 'no JSON', 5), event('node/list', [1], 6),
		event('node/binary', b'\xff\x00', 7), event('handle/consul', {}, 8),
		event('node/other', definition('another'), 9), event('node/sad', {'name': 'sad'}, 10),
		event('node/wrong', definition('wrong', memory='much'), 11),
		event('node/Bad Name', definition('Bad Name'), 12), event('snapshot/x', {'vm': 7}, 13),
		{'Key': 'node/odd', 'Value': '!!!!', 'ModifyIndex': 14}, {'Key': 'node/a', 'Value': 'e30='},
		[], 'text', None]
	good = [node(f'good{i}', 20 + i, kvm_host='elsewhere') for i in range(8)]
	mixed = list(itertools.chain.from_iterable(itertools.zip_longest(bad, good)))
	results = feed(host, *[one for one in mixed if one is not None])
	for i in range(8):
		assert results[f'node/good{i}']['result'] == 'stored'
		assert generation(host, f'good{i}') == 1
	wrong = [result for key, result in results.items() if not key.startswith('node/good')]
	assert {result['result'] for result in wrong} == {'failed'}
	assert all(result['message'] for result in wrong)
	assert set(host.vms()) == {f'good{i}' for i in range(8)}


def told_of(host, name):
	"""What the agent has logged about a VM."""
	return [line for line in logged(host) if f' {name} ' in line]


def test_fc_T38_C6_only_what_is_newer_changes_something(host):
	assert feed(host, node('web01', 7))['node/web01']['result'] == 'stored'
	pid = host.wait_state('web01', 'running')['pid']
	assert host.vm('web01')['source'] == 'consul'
	before = told_of(host, 'web01')
	assert feed(host, node('web01', 7))['node/web01']['result'] == 'unchanged'
	assert feed(host, node('web01', 6, online=False))['node/web01']['result'] == 'unchanged'
	assert told_of(host, 'web01') == before, 'nothing was touched'
	assert generation(host, 'web01') == 1
	assert feed(host, node('web01', 8, online=False))['node/web01']['result'] == 'stored'
	host.wait_state('web01', 'off')
	assert generation(host, 'web01') == 2 and host.vm('web01')['pid'] != pid


@pytest.mark.parametrize('order', list(itertools.permutations((5, 3, 6, 4)))[::5])
def test_fc_K8_the_newest_wins_in_whatever_order_they_come(host, order):
	for index in order:
		feed(host, node('web01', index, kvm_host='elsewhere', memory=64 + index))
	status = host.cli('status', 'web01', '--format', 'json', rc=1).json()
	assert status['memory_mib'] == 70


def test_fc_K7_of_many_updates_at_once_the_last_is_what_counts(host):
	events = [node('web01', index, kvm_host='elsewhere', memory=100 + index)
		for index in range(1, 101)]
	feed(host, *events)
	status = host.cli('status', 'web01', '--format', 'json', rc=1).json()
	assert status['memory_mib'] == 200
	assert generation(host, 'web01') < 20, 'those that were overtaken were not written'


def test_fc_C5_with_few_at_work_all_get_done(new_host):
	host = new_host(consul={'event_threads': 2}).start_agent()
	results = feed(host, *[node(f'web{i:03}', i + 1, kvm_host='elsewhere') for i in range(200)])
	assert {result['result'] for result in results.values()} == {'stored'}
	assert len(host.vms()) == 200


def test_fc_T40_T41_T42_C7_C8_snapshots_are_refused_by_who_has_the_vm(host):
	feed(host, node('here', 1), node('away', 2, kvm_host='elsewhere'))
	host.wait_state('here', 'running')
	requests = [event(f'snapshot/{name}', {'vm': name, 'snapshot': 'daily'}, 10 + i)
		for i, name in enumerate(('here', 'away', 'nobody'))]
	for _ in range(2):
		results = feed(host, *requests)
		assert results['snapshot/away']['result'] == 'ignored', 'each host gets each request'
		assert 'no snapshots' in results['snapshot/here']['message'].replace('makes no', 'no')
		assert 'nobody defined' in results['snapshot/nobody']['message']
	assert len(named(host, 'consul-event-failed')) == 2, 'each is said once'
	assert host.state('here') == 'running'


def test_fc_T43_C9_four_events_have_four_effects(host):
	results = feed(host, *[node(f'w{i}', i + 1, kvm_host='elsewhere', location='Halle (Saale) äöü')
		for i in range(4)])
	assert [result['result'] for result in results.values()] == ['stored'] * 4
	assert len(host.vms()) == 4


def test_a_definition_has_one_source(host):
	host.apply(micro('applied', kvm_host='elsewhere'))
	refused = feed(host, node('applied', 5))['node/applied']
	assert refused['result'] == 'failed' and 'by apply already' in refused['message']
	feed(host, node('fed', 6, kvm_host='elsewhere'))
	refused = host.apply(micro('fed'), rc=69)
	assert 'by consul already' in refused.err
	(host.vms_dir / 'fed.yaml').write_text(json.dumps(micro('fed')), encoding='utf-8')
	host.wait(lambda: 'by consul already' in host.agent_log(), 'the file is refused too')
	assert generation(host, 'fed') == 1


def test_what_is_no_list_is_refused_and_without_an_agent_it_is_tried_later(host):
	for text in ('', '{}', 'x', '[{]'):
		assert host.drover('handle-consul-event', input=text).rc == 65
	host.stop_agent()
	assert host.drover('handle-consul-event', input=json.dumps([node('web01', 1)])).rc == 75


def test_two_agents_that_get_the_same_events_write_them_once(new_host):
	store = new_host('alpha').start_agent()
	other = new_host('beta', store=f'local:{store.lib}/store.db').start_agent()
	for index in (1, 2, 3):
		events = [node(f'web{i}', index, kvm_host='elsewhere', memory=64 + index) for i in range(20)]
		text = json.dumps(events)
		results = [host.drover('handle-consul-event', '--format', 'json', input=text).json()
			for host in (store, other)]
		assert {one['result'] for one in results[0]} == {'stored'}
		assert {one['result'] for one in results[1]} == {'unchanged'}
	assert {generation(other, f'web{i}') for i in range(20)} == {3}


@pytest.mark.skipif(not consul.available(), reason='no Consul: tests/consul/fetch DIR')
def test_fc_W22_a_service_tells_where_a_vm_runs(new_host):
	with consul.Consul(servers=1) as servers:
		def passing(name):
			return [one['Service']['Address'] for one in
				servers.ask(0, 'GET', f'health/service/qemu-{name}?passing') or []]

		master = servers.write_token('master', consul.MASTER)
		host = new_host(consul={'address': f'http://{servers.host(0)}:8500',
			'token_file': str(master), 'register_services': True}).start_agent()
		host.apply(micro('web01'), micro('web02'))
		for name in ('web01', 'web02'):
			host.wait(lambda name=name: passing(name) == ['alpha'], 'it is found')
		host.cli('stop', 'web01')
		host.wait(lambda: passing('web01') == [], 'it is gone')
		assert passing('web02') == ['alpha']
		host.stop_agent()
		servers.ask(0, 'PUT', 'agent/service/deregister/qemu-web02')
		servers.ask(0, 'PUT', 'agent/service/register', {'Name': 'qemu-stale', 'ID': 'qemu-stale',
			'Meta': {'drover-node': 'alpha'}})
		servers.ask(0, 'PUT', 'agent/service/register', {'Name': 'qemu-others', 'ID': 'qemu-others'})
		host.start_agent()
		host.wait(lambda: passing('web02') == ['alpha'] and passing('stale') == [],
			'what is wrong is made good')
		assert len(passing('others')) == 1


class Found:
	"""What who looks a VM up in Consul is told, at every moment."""

	def __init__(self, servers, i, name):
		self.servers, self.i, self.path = servers, i, f'health/service/qemu-{name}?passing'
		self.seen, self.done = [], threading.Event()
		self.thread = threading.Thread(target=self.look, daemon=True)
		self.thread.start()

	def look(self):
		while not self.done.wait(0.01):
			told = self.servers.ask(self.i, 'GET', self.path)
			now = None if told is None else sorted(one['Service']['Address'] for one in told)
			if now is not None and [now] != self.seen[-1:]:
				self.seen.append(now)

	def end(self):
		self.done.set()
		self.thread.join()
		return self.seen


@pytest.mark.skipif(not consul.available(), reason='no Consul: tests/consul/fetch DIR')
@pytest.mark.parametrize('agents', [1, 2])
def test_fc_C10_a_service_is_there_all_the_time_of_a_migration(new_host, tmp_path, agents):
	"""With one agent of Consul for both hosts there is exactly one at every moment; with one for each
	both may be there until the source has ended its copy."""
	with consul.Consul(servers=agents) as servers:
		master = servers.write_token('master', consul.MASTER)

		def with_consul(name, **config):
			i = agents - 1 if name == 'beta' else 0
			return new_host(name, consul={'address': f'http://{servers.host(i)}:8500',
				'token_file': str(master), 'register_services': True}, **config)
		alpha, beta = make_cluster(with_consul, tmp_path)
		found = Found(servers, 0, 'web01')
		alpha.apply(micro('web01'))
		alpha.wait(lambda: found.seen[-1:] == [['alpha']], 'it is found')
		alpha.cli('migrate', 'web01', '--to', 'beta', '--timeout', '120s')
		alpha.wait(lambda: found.seen[-1] == ['beta'], 'it is found where it went')
		alpha.wait(lambda: not alpha.left(), 'nothing is left where it was')
		seen = found.end()
	while not seen[0]:
		seen.pop(0)
	assert seen in ([['alpha'], ['beta']],
		*([[['alpha'], ['alpha', 'beta'], ['beta']]] if agents > 1 else [])), seen


@pytest.mark.asan
@pytest.mark.skipif(not consul.available(), reason='no Consul: tests/consul/fetch DIR')
def test_fc_C1_the_agent_watches_the_keys_by_itself(new_host):
	with consul.Consul(servers=1) as servers:
		def put(key, value):
			assert servers.ask(0, 'PUT', f'kv/{key}', json.dumps(value).encode())

		put('node/web01', definition('web01'))
		put('node/broken', ['no definition'])
		master = servers.write_token('master', consul.MASTER)
		host = new_host(consul={'address': f'http://{servers.host(0)}:8500',
			'token_file': str(master)}).start_agent()
		host.wait_state('web01', 'running')
		put('node/web02', definition('web02', kvm_host='elsewhere'))
		host.wait(lambda: host.vm('web02'), 'a new key is a new VM')
		put('node/web01', definition('web01', online=False))
		host.wait_state('web01', 'off')
		put('snapshot/1', {'vm': 'nobody', 'snapshot': 'daily'})
		host.wait(lambda: 'nobody' in host.agent_log(), 'a request is heard')
		servers.kill(0)
		servers.run(0)
		servers.settle()
		put('node/web03', definition('web03', kvm_host='elsewhere'))
		host.wait(lambda: host.vm('web03'), 'it goes on when Consul is back')
		assert generation(host, 'web01') == 2
		assert consul.MASTER not in host.agent_log()
