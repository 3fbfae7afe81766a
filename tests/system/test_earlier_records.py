# SPDX-License-Identifier: Apache-2.0
"""A store and a run directory as an earlier version left them (tests/fixtures)."""
import json
import pathlib
import sqlite3

import pytest

from drover import SOURCE, build_dir

FIXTURE = SOURCE / 'tests/fixtures/one-host.json'


def earlier(host):
	"""Gives the host what the fixture holds; returns it."""
	boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip().replace('-', '')
	machine = pathlib.Path('/etc/machine-id').read_text().strip() if pathlib.Path('/etc/machine-id').exists() \
		else 'unknown'
	text = FIXTURE.read_text(encoding='utf-8').replace('@BUILD@', str(build_dir())) \
		.replace('@ROOT@', str(host.root)).replace('@MACHINE@', machine).replace('@BOOT@', boot)
	fixture = json.loads(text)
	host.lib.mkdir(parents=True)
	with sqlite3.connect(host.lib / 'store.db') as db:
		for statement in fixture['sql']:
			db.execute(statement)
		for name, value in fixture['pragmas'].items():
			db.execute(f'PRAGMA {name} = {value}')
		db.execute('INSERT INTO counter VALUES (1000)')
		db.executemany('INSERT INTO keys (key, version, value) VALUES (?, ?, ?)',
			[(key, i + 1, json.dumps(value)) for i, (key, value) in enumerate(fixture['keys'].items())])
	run = host.run / 'vms/m1'
	run.mkdir(parents=True)
	for name in ('state.json', 'copy.json'):
		(run / name).write_text(json.dumps(fixture[name]), encoding='utf-8')
	return fixture


def value_of(host, key):
	with sqlite3.connect(host.lib / 'store.db', timeout=30) as db:
		row = db.execute('SELECT value FROM keys WHERE key = ?', (key,)).fetchone()
	return json.loads(row[0]) if row else None


def check(host, fixture):
	vm = host.wait_state('m1', 'off')
	assert vm['order'] is not None and vm['generation'] == 1
	assert host.vm('m2')['wish'] == 'hands-off'
	host.cli('start', 'm1')
	vm = host.vm('m1')
	assert vm['state'] == 'running'
	# What the guest sees is what it saw.
	hardware = fixture['keys']['/drover/vms/m1/hardware']
	assert (vm['uuid'], vm['machine_type']) == (hardware['uuid'], hardware['machine_type'])
	assert vm['epoch'] > fixture['keys']['/drover/vms/m1/owner']['epoch']


@pytest.mark.asan
def test_fc_H17_records_of_an_earlier_version_are_read_and_kept(new_host):
	host = new_host()
	fixture = earlier(host)
	host.start_agent()
	check(host, fixture)
	# They had no number yet: they are of the first form.
	assert value_of(host, '/drover/schema') == {'v': 1, 'version': 1}


def test_they_are_brought_to_a_later_form(new_host):
	host = new_host()
	fixture = earlier(host)
	host.environment['DROVER_TEST_FORM'] = '2'
	host.start_agent()
	host.wait(lambda: value_of(host, '/drover/schema') == {'v': 1, 'version': 2}, 'they have the later form')
	assert value_of(host, '/drover/vms/m1/definition')['form'] == 2
	check(host, fixture)
