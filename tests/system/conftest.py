# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the system tests: hosts that clean up after themselves and tell why they failed."""
import os
import pathlib
import re
import shutil
import tempfile

import pytest

import drover

# Other versions of QEMU are there when somebody has fetched them: docs/QEMU.md.
collect_ignore = [] if os.environ.get('DROVER_QEMUS') else ['test_versions.py']


def pytest_configure(config):
	config.addinivalue_line('markers', 'asan: quick; also run with the build that has sanitizers')
	config.addinivalue_line('markers', 'slow: left out by ./check --fast')
	config.addinivalue_line('markers', 'leaves_things: what is left on the host is looked at by the '
		'test itself')


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
	outcome = yield
	setattr(item, f'report_{call.when}', outcome.get_result())


def pytest_collection_modifyitems(items):
	missing = None
	if os.geteuid() != 0:
		missing = 'root is needed'
	elif not drover.build_dir():
		missing = 'no build with a droverd: set DROVER_BUILD'
	elif not shutil.which('qemu-system-x86_64'):
		missing = 'qemu-system-x86_64 is not installed'
	for item in items if missing else []:
		item.add_marker(pytest.mark.skip(reason=missing))


def failed(item):
	return any(getattr(item, f'report_{when}', None) and getattr(item, f'report_{when}').failed
		for when in ('setup', 'call'))


def logs_of(item):
	where = os.environ.get('DROVER_TEST_LOGS', str(drover.build_dir() / 'logs' / 'system'))
	return pathlib.Path(where) / re.sub(r'[^\w.-]+', '_', item.name)[:100]


def finish(host, item):
	"""The end of a host: after a test that passed, nothing may be left of its VMs."""
	try:
		bad = failed(item)
		if bad:
			print(host.dump())
		elif host.agent_process and not item.get_closest_marker('leaves_things'):
			try:
				host.check_nothing_left()
			except BaseException:
				bad = True
				raise
	finally:
		if bad:
			host.keep_logs(logs_of(item))
			print(f'logs are in {logs_of(item)}')
		host.destroy()
		host.remove()


@pytest.fixture
def new_host(request):
	"""Makes hosts: new_host(timers={...}, memory={...}) with the configuration given, not started."""
	hosts = []

	def make(name='alpha', **config):
		hosts.append(drover.Host(name, **config))
		return hosts[-1]
	yield make
	errors = []
	for host in hosts:
		try:
			finish(host, request.node)
		except Exception as error:  # the other hosts have to go too
			errors.append(error)
	if errors:
		raise errors[0]


@pytest.fixture
def host(new_host):
	"""A host whose agent answers."""
	return new_host().start_agent()


@pytest.fixture
def fake_qemu():
	"""Makes a QEMU that answers questions about itself, and runs a script instead of a guest.  It has
	to be where QEMU's own mount namespace shows it, so not in /tmp."""
	directory = pathlib.Path(tempfile.mkdtemp(prefix='drover-test-', dir='/opt'))
	directory.chmod(0o755)
	real = shutil.which('qemu-system-x86_64')
	path = directory / 'qemu-fake'

	def make(script):
		path.write_text('#!/bin/bash\n'
			f'case "$*" in *drover:*) {script};; esac\nexec {real} "$@"\n', encoding='utf-8')
		path.chmod(0o755)
		return str(path)
	yield make
	shutil.rmtree(directory)


@pytest.fixture
def linux_slot():
	"""For tests that boot a Linux guest of their own."""
	if not drover.guest_dir():
		pytest.skip('no Linux guest: guest/build DIR, DROVER_GUEST=DIR')
	with drover.linux_slot():
		yield


@pytest.fixture(scope='module')
def linux(request):
	"""A host with a Linux guest named 'tux' that is up, shared by the tests of a module: they leave
	it running as they found it."""
	if not drover.guest_dir():
		pytest.skip('no Linux guest: guest/build DIR, DROVER_GUEST=DIR')
	with drover.linux_slot():
		host = drover.Host()
		try:
			host.start_agent()
			host.apply(drover.linux('tux', disk=1, cores=1, nics=[{'network': 'user'}]))
			host.cli('guest', 'tux', 'guest-ping', '--timeout', '120s')
			yield host
			host.check_nothing_left()
		finally:
			if request.session.testsfailed:
				host.keep_logs(logs_of(request.node))
			host.destroy()
			host.remove()
