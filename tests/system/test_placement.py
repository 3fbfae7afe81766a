# SPDX-License-Identifier: Apache-2.0
"""Orders that say where a VM should be, as far as no guest has to move: what is refused, what is
written, and who runs the VM next time."""
import pytest

from drover import Ticks, micro


@pytest.fixture
def pair(new_host, tmp_path):
	store = f'local:{tmp_path}/store.db'
	return [new_host(name, store=store).start_agent() for name in ('alpha', 'beta')]


def known(host, name):
	"""The other node's order has been heard of."""
	host.wait(lambda: name in host.vms(), f'{host.name} knows of {name}')


def refused(host, *words):
	done = host.drover(*words)
	assert done.rc == 69, done
	return done.err


def placement(host, name):
	return host.vm(name)['placement']


def test_a_vm_is_sent_to_no_node_that_cannot_have_it(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	assert "there is no node 'gamma'" in refused(alpha, 'migrate', 'm1', '--to', 'gamma')
	assert "is on node 'alpha' already" in refused(alpha, 'migrate', 'm1', '--to', 'alpha')
	assert "is on node 'alpha' already" in refused(alpha, 'move', 'm1', '--to', 'alpha')
	assert 'there is no way back' in refused(alpha, 'unmigrate', 'm1')
	assert 'is not being moved' in refused(alpha, 'migrate', 'm1', '--cancel')
	beta.cli('shutdown-all', '--yes')
	assert "node 'beta' takes no VMs" in refused(alpha, 'migrate', 'm1', '--to', 'beta')
	assert "no node but 'alpha'" in refused(alpha, 'migrate', 'm1')
	assert placement(alpha, 'm1') is None and alpha.state('m1') == 'running'


def test_a_guest_that_runs_is_not_sent_where_no_cluster_leads(pair):
	"""It would be waited for until the deadline of a migration, without a word."""
	alpha, beta = pair
	alpha.apply(micro('m1'))
	assert "'drover cluster init'" in refused(alpha, 'migrate', 'm1', '--to', 'beta')
	assert "node 'alpha' is in no cluster" in refused(alpha, 'migrate', 'm1')
	assert placement(alpha, 'm1') is None and alpha.state('m1') == 'running'


def test_a_vm_that_is_not_to_be_touched_is_not_moved(pair):
	alpha, _ = pair
	alpha.apply(micro('m1', kvm_host=''), args=['--no-wait'])
	assert 'not to be touched' in refused(alpha, 'migrate', 'm1', '--to', 'beta')
	alpha.apply(micro('m2', migration_method='live', online=False), args=['--no-wait'])
	assert "'migration_method: live'" in refused(alpha, 'move', 'm2', '--to', 'beta', '--method', 'shutdown')


def test_a_vm_that_is_off_is_moved_by_its_placement_alone(pair):
	alpha, beta = pair
	alpha.apply(micro('m1'))
	alpha.cli('stop', 'm1')
	alpha.cli('move', 'm1', '--to', 'beta')
	assert placement(alpha, 'm1')['kind'] == 'move' and alpha.vm('m1')['target'] == 'beta'
	assert "belongs to node 'beta' (uid 0 at alpha ordered 'move' at" in refused(alpha, 'start', 'm1')
	known(beta, 'm1')
	beta.wait(lambda: beta.vm('m1')['target'] == 'beta', 'beta knows')
	beta.cli('start', 'm1')
	assert alpha.qemus() == [] and len(beta.qemus()) == 1


def test_a_migrated_vm_goes_home_when_it_is_told_to(pair):
	alpha, beta = pair
	alpha.apply(micro('m1', kvm_host='alpha'))
	alpha.cli('stop', 'm1')
	alpha.cli('migrate', 'm1', '--max-downtime', '100')
	order = placement(alpha, 'm1')
	assert (order['kind'], order['node'], order['return_to'], order['max_downtime_ms']) == (
		'migrate', 'beta', 'alpha', 100)
	known(beta, 'm1')
	beta.wait(lambda: beta.vm('m1')['target'] == 'beta', 'beta knows')
	beta.cli('start', 'm1')
	assert "Its own node is 'alpha'; 'drover unmigrate m1' brings it back" in beta.cli('explain', 'm1').out
	beta.cli('stop', 'm1')
	beta.cli('unmigrate', 'm1')
	assert placement(beta, 'm1') is None
	alpha.wait(lambda: alpha.vm('m1')['target'] == 'alpha', 'alpha knows')
	alpha.cli('start', 'm1')
	assert len(alpha.qemus()) == 1 and beta.qemus() == []


def test_an_order_stands_until_a_definition_names_another_node(pair):
	alpha, beta = pair
	alpha.apply(micro('m1', kvm_host='alpha', online=False), args=['--no-wait'])
	alpha.cli('move', 'm1', '--to', 'beta')
	alpha.apply(micro('m1', kvm_host='alpha', online=False, cores=2), args=['--no-wait'])
	assert alpha.vm('m1')['target'] == 'beta'
	alpha.apply(micro('m1', kvm_host='beta', online=False), args=['--no-wait'])
	alpha.apply(micro('m1', kvm_host='alpha', online=False), args=['--no-wait'])
	assert alpha.vm('m1')['target'] == 'alpha'
	known(beta, 'm1')
	beta.wait(lambda: beta.vm('m1')['target'] == 'alpha', 'beta knows')


def test_disks_of_one_node_do_not_move_without_their_vm(pair):
	alpha, _ = pair
	alpha.apply(micro('m1', disk=1))
	alpha.cli('stop', 'm1')
	error = refused(alpha, 'move', 'm1', '--to', 'beta')
	assert "are on node 'alpha', and move only while it runs: 'drover start m1' first" in error


def test_an_order_survives_both_agents_and_the_newest_counts(pair):
	alpha, beta = pair
	alpha.apply(micro('m1', online=False), args=['--no-wait'])
	known(beta, 'm1')
	alpha.cli('migrate', 'm1', '--to', 'beta')
	beta.wait(lambda: placement(beta, 'm1'), 'beta knows of the order')
	beta.cli('migrate', 'm1', '--to', 'alpha')
	for host in pair:
		host.wait(lambda h=host: h.vm('m1')['target'] == 'alpha', f'{host.name} knows')
	alpha.restart_agent()
	assert alpha.vm('m1')['target'] == 'alpha' and placement(alpha, 'm1')['number'] == 2


def test_fc_M8_no_node_that_could_take_it_means_it_stays(pair):
	"""No guest can move as long as these two are no cluster, whoever wants it: nothing happens to it."""
	alpha, beta = pair
	alpha.apply(micro('m1'))
	with Ticks(alpha, 'm1') as ticks:
		assert 'is in no cluster' in refused(alpha, 'migrate', 'm1', '--to', 'beta')
		alpha.apply(micro('m1', kvm_host='beta'), args=['--no-wait'])
		alpha.wait(lambda: alpha.vm('m1')['wish'] == 'elsewhere', 'it belongs there')
		assert "It is moved there; 'drover migrate m1 --cancel' lets it stay." in alpha.cli('explain', 'm1').out
		alpha.cli('migrate', 'm1', '--cancel')
		vm = alpha.vm('m1')
		assert (vm['state'], vm['wish'], vm['target']) == ('running', 'run', 'alpha')
		ticks.check()
	beta.wait(lambda: not beta.left(), 'nothing is left of a receiver')
