#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Turns what test programs say into the lines that ./check counts.

Each line is "passed|failed|skipped NAME[: REASON]".  A test that was announced and of which
nothing was heard (its program died) has failed.
"""

import fnmatch
import json
import os
import re
import sys
import xml.etree.ElementTree as tree


def say(result, name, reason=""):
	reason = " ".join(reason.split())
	print(f"{result} {name}" + (f": {reason}" if reason else ""))


def tap(prefix, stdout):
	"""Lines of one cmocka program; returns how many results there were and whether one is bad."""
	announced = heard = bad = 0
	for line in stdout.splitlines():
		if plan := re.match(r"1\.\.(\d+)", line):
			announced += int(plan[1])
		# cmocka writes of a test that skips itself "not ok 5 # SKIP its_name".
		if found := re.match(r"(?:not )?ok \d+ # SKIP (.*)", line):
			heard += 1
			say("skipped", f"{prefix}/{found[1]}")
			continue
		if not (found := re.match(r"(not )?ok \d+(?: -)? (.*?)( *# SKIP.*)?$", line)):
			continue
		heard += 1
		name = f"{prefix}/{found[2]}"
		if found[1]:
			bad += 1
			say("failed", name)
		elif found[3]:
			say("skipped", name)
		else:
			say("passed", name)
	for _ in range(heard, announced):
		bad += 1
		say("failed", prefix, "its program ended before this test was done")
	return heard, bad


def meson(suite, path):
	"""The log of meson test: one JSON object per line, written as tests end."""
	if not os.path.exists(path):
		say("failed", suite, "no test ran")
		return
	with open(path, encoding="utf-8") as log:
		for line in log:
			test = json.loads(line)
			name = f"{suite}: {test['name'].rpartition(' / ')[2]}"
			heard, bad = tap(name, test.get("stdout") or "")
			outcome = test["result"]
			if outcome == "SKIP":
				say("skipped", name)
			elif outcome not in ("OK", "EXPECTEDFAIL") and not bad:
				say("failed", name, outcome.lower())
			elif not heard:
				say("passed", name)


def junit(suite, path):
	"""What pytest leaves, also when it was interrupted."""
	if not os.path.exists(path):
		say("failed", suite, "no test ran")
		return
	for case in tree.parse(path).iter("testcase"):
		name = f"{suite}: {case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
		skipped = case.find("skipped")
		broken = [part for part in case if part.tag in ("failure", "error")]
		if broken:
			say("failed", name, (broken[0].get("message") or "")[:200])
		elif skipped is not None:
			say("skipped", name, skipped.get("message") or "")
		else:
			say("passed", name)


def unexpected(expected, *results):
	"""Skips that tests/expected-skips does not know; exit status 1 if there are any."""
	with open(expected, encoding="utf-8") as lines:
		patterns = [line.split(" -- ")[0].strip() for line in lines if not line.startswith("#")]
	found = 0
	for path in results:
		with open(path, encoding="utf-8") as lines:
			for line in lines:
				what = line.partition(" ")[2].rstrip("\n")
				if line.startswith("skipped ") and not any(
					fnmatch.fnmatchcase(what, pattern) for pattern in patterns if pattern
				):
					found += 1
					print(f"not in {expected}: skipped {what}")
	return 1 if found else 0


def sources(path):
	"""The files of a compilation database, each once."""
	with open(path, encoding="utf-8") as database:
		entries = json.load(database)
	files = {os.path.normpath(os.path.join(e["directory"], e["file"])) for e in entries}
	print("\n".join(sorted(files)))


if __name__ == "__main__":
	command = {"meson": meson, "junit": junit, "unexpected": unexpected, "sources": sources}
	sys.exit(command[sys.argv[1]](*sys.argv[2:]))
