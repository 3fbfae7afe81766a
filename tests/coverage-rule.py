#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""docs/COVERAGE.md says what is so: each id of the specification once, no test that is not there,
and each test that bears an id in its name stands in that id's row."""
import pathlib
import re
import sys

LAST = {
	'fc-P': 28, 'fc-K': 22, 'fc-C': 13, 'fc-M': 25, 'fc-S': 23, 'fc-G': 9, 'fc-H': 17, 'fc-T': 108,
	'fc-W': 32, 'pvc-S': 50, 'pvc-C': 26, 'I': 10,
}
ID = r'(?:(?:fc|pvc)-[A-Z]|I)\d+|review-[A-Z]\d*'
EXCUSES = ('later: cluster', 'later: one host', 'later: storage/ceph', 'by design: ',
	'not covered yet')


def tests_of(path):
	"""Names of the tests of one file; a C test that no table lists does not compile."""
	text = path.read_text(encoding='utf-8')
	if path.suffix == '.py':
		return re.findall(r'^\s*def (test_\w+)\(', text, re.M)
	return re.findall(r'^static void (\w+)\(void \*\*\w+\)', text, re.M)


def ids_of(name, file):
	"""What the name of a test says that it shows: test_fc_P5_and_fc_P6_..., test_I4_..."""
	found = [f'{spec}-{number}' for spec, number in
		re.findall(r'(?:^|_)(fc|pvc)_([A-Z]\d+)(?=_|$)', name)]
	found += re.findall(r'^(?:test_)?(I\d+)(?=_)', name)
	if file == 'test_keeper_alone.py':
		found += [f'review-{letter}' for letter in re.findall(r'^test_([A-Z]\d*)_', name)
			if not re.fullmatch(r'I\d+', letter)]
	return found


def ids_between(cell):
	"""The ids of a first cell: one, or `fc-C1 to fc-C13`; None when it is neither."""
	match = re.fullmatch(rf'({ID})(?: to ({ID}))?', cell)
	if not match:
		return None
	first, last = match.groups()
	if not last:
		return [first]
	group, begin = re.fullmatch(r'(.*?)(\d+)', first).groups()
	if not re.fullmatch(re.escape(group) + r'\d+', last) or int(begin) >= int(last[len(group):]):
		return None
	return [f'{group}{number}' for number in range(int(begin), int(last[len(group):]) + 1)]


def read_page(path, files, complain):
	"""Rows by id: the tests named in each."""
	rows = {}
	for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
		if not line.startswith('|') or re.match(r'\|(-+\|)+$|\| id \|', line):
			continue
		cells = [cell.strip() for cell in line.strip('|').split('|')]
		ids = ids_between(cells[0])
		if ids is None or len(cells) != 3 or not cells[1]:
			complain(f'{number}: not "| id | what | test |"')
			continue
		named = re.findall(r'`(test[-_][\w-]+\.(?:c|py))(?:::(\w+))?`', cells[2])
		for file, name in named:
			if file not in files:
				complain(f'{number}: there is no {file}')
			elif name and name not in files[file]:
				complain(f'{number}: {file} has no test {name}')
		if not named and not cells[2].startswith(EXCUSES):
			complain(f'{number}: names neither a test nor one of {", ".join(EXCUSES)}')
		for one in ids:
			if one in rows:
				complain(f'{number}: {one} has a row already')
			rows[one] = named
	return rows


def main():
	root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
	page = root / 'docs/COVERAGE.md'
	wrong = []

	def complain(words):
		wrong.append(f'docs/COVERAGE.md:{words}')
	files = {path.name: tests_of(path) for folder in ('unit', 'system')
		for path in sorted((root / 'tests' / folder).glob('test*')) if path.suffix in ('.c', '.py')}
	rows = read_page(page, files, complain)
	wanted = {f'{group}{number}' for group, last in LAST.items() for number in range(1, last + 1)}
	for one in sorted(wanted - set(rows)):
		complain(f' {one} has no row')
	for one in sorted(set(rows) - wanted):
		if not one.startswith('review-'):
			complain(f' {one} is no id of the specification')
	for file, names in files.items():
		for name in names:
			for one in ids_of(name, file):
				if (file, name) not in rows.get(one, []):
					complain(f' {file}::{name} is not in the row of {one}')
	print('\n'.join(wrong) or f'{len(rows)} ids, {sum(map(len, files.values()))} tests')
	return 1 if wrong else 0


if __name__ == '__main__':
	sys.exit(main())
