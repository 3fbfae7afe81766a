# SPDX-License-Identifier: Apache-2.0
"""Records of a form that an agent does not know: it reads none of them wrong."""
import sqlite3

import pytest

from drover import micro


def schema(store, version=None):
	"""What stands in /drover/schema of an embedded store, after writing it when one is given."""
	with sqlite3.connect(store, timeout=30) as db:
		if version is not None:
			db.execute("UPDATE keys SET value = ?, version = version + 1000000 "
				"WHERE key = '/drover/schema'", (f'{{"v":1,"version":{version}}}',))
		return db.execute("SELECT value FROM keys WHERE key = '/drover/schema'").fetchone()


@pytest.mark.asan
def test_an_agent_of_an_older_form_stays_outside_and_says_so(new_host):
	host = new_host().start_agent()
	host.wait(lambda: 'connected' == host.cli('node', '--format', 'json').json()['store_state'],
		'the agent has joined')
	store = host.lib / 'store.db'
	assert schema(store) == ('{"v":1,"version":1}',)
	host.stop_agent()
	schema(store, 2)
	host.start_agent()
	host.wait(lambda: 'schema 2' in host.cli('node', '--format', 'json').json()['store_state'],
		'the agent says why it has not joined')
	result = host.drover('apply', '-', '--timeout', '1s', input=str(micro('m1')).replace("'", '"')
		.replace('True', 'true'))
	assert not host.qemus('m1'), result
	schema(store, 1)
	host.wait(lambda: 'connected' == host.cli('node', '--format', 'json').json()['store_state'],
		'it joins by itself once it can')
