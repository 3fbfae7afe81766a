# SPDX-License-Identifier: Apache-2.0
"""Two agents of one machine on one store: the beginnings of a cluster."""
import pytest

from drover import Ticks, micro


@pytest.fixture
def pair(new_host, tmp_path):
	store = f'local:{tmp_path}/store.db'
	return [new_host(name, store=store).start_agent() for name in ('alpha', 'beta')]


def test_I1_two_agents_one_store_one_guest(pair):
	"""Without a word about it a VM belongs where its definition came in, and where it runs."""
	alpha, beta = pair
	alpha.apply(micro('m1'))
	with Ticks(alpha, 'm1') as ticks:
		beta.wait(lambda: beta.vms().get('m1', {}).get('node') == 'alpha', 'beta knows of it')
		refusal = beta.drover('start', 'm1', '--timeout', '5s')
		assert refusal.rc == 69 and "belongs to node 'alpha' (it is there)" in refusal.err
		beta.restart_agent()
		beta.drover('ensure', 'm1', '--timeout', '2s')
		assert len(alpha.qemus()) == 1 and beta.qemus() == []
		ticks.check()


def test_pvc_S14_a_record_that_another_node_holds_is_not_taken(pair):
	"""alpha's agent is away: nothing is known of its guest, so nothing is done about it."""
	alpha, beta = pair
	alpha.apply(micro('m1', kvm_host='alpha'))
	alpha.stop_agent()
	with Ticks(alpha, 'm1') as ticks:
		beta.apply(micro('m1', kvm_host='beta'), args=['--no-wait'])
		beta.wait(lambda: "does not come to node 'beta': node 'alpha' holds it" in str(
			beta.vm('m1')['reason']), 'it says why it does not run')
		assert beta.state('m1') == 'unknown'
		beta.drover('ensure', 'm1', '--timeout', '1s')
		assert beta.qemus() == []
		ticks.check()
	alpha.start_agent()
	assert alpha.wait_state('m1', 'running')['wish'] == 'elsewhere'
	alpha.cli('kill', 'm1')
	beta.wait(lambda: beta.vm('m1')['wish'] == 'stop', "beta hears of the other node's order")
	beta.cli('start', 'm1', '--no-wait')
	beta.wait_state('m1', 'running')
	assert alpha.qemus() == []


def test_each_node_is_told_apart(pair):
	alpha, beta = pair
	assert [h.cli('node', '--format', 'json').json()['name'] for h in pair] == ['alpha', 'beta']
	alpha.apply(micro('m1', kvm_host='beta'), args=['--no-wait'])
	beta.wait_state('m1', 'running')
	alpha.wait(lambda: alpha.vm('m1')['node'] == 'beta', 'alpha knows where it runs')
	assert alpha.qemus() == []
