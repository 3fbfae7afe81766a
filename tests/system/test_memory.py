# SPDX-License-Identifier: Apache-2.0
"""Memory: nobody is started that the host has no room for, however many start at once."""
from drover import micro


def memory(host):
	return host.cli('node', '--format', 'json').json()['memory_mib']


def test_fc_K19_two_parallel_starts_and_room_for_one(new_host):
	host = new_host(memory={'limit_mib': 200, 'overhead_mib': 50}).start_agent()
	host.apply(micro('m1', memory=64, online=False), micro('m2', memory=64, online=False),
		args=['--no-wait'])
	host.apply(micro('m1', memory=64), micro('m2', memory=64), args=['--no-wait'])

	def one_runs_one_failed():
		states = sorted(vm['state'] for vm in host.vms().values())
		return states == ['failed', 'running']
	host.wait(one_runs_one_failed, 'one runs, one is refused')
	assert len(host.qemus()) == 1
	refused = next(vm for vm in host.vms().values() if vm['state'] == 'failed')
	runs = next(vm for vm in host.vms().values() if vm['state'] == 'running')
	assert 'insufficient bookable memory' in refused['reason']
	assert '114' in refused['reason'] and '200' in refused['reason']
	host.cli('stop', runs['name'])
	host.cli('ensure', refused['name'])
	assert host.state(refused['name']) == 'running'


def test_fc_K20_the_overhead_counts(new_host):
	host = new_host(memory={'limit_mib': 127, 'overhead_mib': 64}).start_agent()
	host.apply(micro('m1', memory=64), rc=1)
	assert '64 + 64' in host.vm('m1')['reason']


def test_what_is_not_there_is_not_given(new_host):
	host = new_host(memory={'overhead_mib': 0}).start_agent()
	host.apply(micro('m1', memory=memory(host)['total'] + 1024), rc=1)
	assert 'insufficient memory on this host' in host.vm('m1')['reason']
	assert host.qemus() == []


def test_bookings_follow_the_guests(host):
	assert memory(host)['booked'] == 0
	host.apply(micro('m1'), micro('m2'))
	assert memory(host)['booked'] == 2 * (64 + 512)
	host.keeper('m1').kill()
	host.wait(lambda: host.keeper('m1'), 'there is a keeper')
	host.wait(lambda: memory(host)['booked'] == 2 * (64 + 512), 'it is booked by the next keeper')
	host.cli('stop', 'm1')
	assert memory(host)['booked'] == 64 + 512
	host.cli('kill', 'm2')
	assert memory(host)['booked'] == 0


def test_two_agents_of_one_machine_share_the_room(new_host, tmp_path):
	shared = {'host_dir': str(tmp_path / 'host'), 'memory': {'limit_mib': 200, 'overhead_mib': 50}}
	one = new_host('one', **shared).start_agent()
	two = new_host('two', **shared).start_agent()
	one.apply(micro('m1'))
	two.apply(micro('m1'), rc=1)
	# It is tried again and again: between two tries the reason is there.
	two.wait(lambda: 'insufficient bookable memory' in (two.vm('m1')['reason'] or ''),
		 'the second one says why')
	one.cli('stop', 'm1')
	two.cli('ensure', 'm1')
	assert two.state('m1') == 'running'
	assert one.qemu('m1') is None
