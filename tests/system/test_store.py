# SPDX-License-Identifier: Apache-2.0
"""Two agents of one machine on one store: the beginnings of a cluster."""
import pytest

from drover import Ticks, micro


@pytest.fixture
def pair(new_host, tmp_path):
	store = f'local:{tmp_path}/store.db'
	return [new_host(name, store=store).start_agent() for name in ('alpha', 'beta')]


def test_I1_two_agents_one_store_one_guest(pair):
	"""Both would run it; whoever writes the owner record first does."""
	pair[0].apply(micro('m1'), args=['--no-wait'])
	winner = pair[0].wait(lambda: next((h for h in pair if h.state('m1') == 'running'), None),
		'one of them runs it')
	loser = next(h for h in pair if h is not winner)
	with Ticks(winner, 'm1') as ticks:
		reason = loser.wait_state('m1', 'failed')['reason']
		assert f"node '{winner.name}' holds it" in reason
		refusal = loser.drover('start', 'm1', '--timeout', '5s')
		assert refusal.rc != 0 and winner.name in refusal.err
		loser.restart_agent()
		loser.drover('ensure', 'm1', '--timeout', '2s')
		assert len(winner.qemus()) == 1 and loser.qemus() == []
		ticks.check()


def test_pvc_S14_a_record_that_another_node_holds_is_not_taken(pair):
	"""alpha's agent is away: nothing is known of its guest, so nothing is done about it."""
	alpha, beta = pair
	alpha.apply(micro('m1', kvm_host='alpha'))
	alpha.stop_agent()
	with Ticks(alpha, 'm1') as ticks:
		beta.apply(micro('m1', kvm_host='beta'), args=['--no-wait'])
		vm = beta.wait_state('m1', 'failed')
		assert "node 'alpha' holds it" in vm['reason']
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
	assert alpha.vm('m1')['wish'] == 'elsewhere' and alpha.qemus() == []
