#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""tests/tally.py understands what cmocka 1.1.5 and meson write."""

import contextlib
import io
import json
import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tally  # noqa: E402

TAP = """1..5
ok 1 - fine
not ok 2 - broken
not ok 3 # SKIP left_out
ok 4 - in_another_form # SKIP no such thing
# ok - program
"""
LINES = [
	"passed unit: program/fine",
	"failed unit: program/broken",
	"skipped unit: program/left_out",
	"skipped unit: program/in_another_form",
	"failed unit: program: its program ended before this test was done",
]

with tempfile.NamedTemporaryFile("w", suffix=".json") as log:
	log.write(json.dumps({"name": "drover:unit / program", "result": "ERROR", "stdout": TAP}) + "\n")
	log.flush()
	with contextlib.redirect_stdout(io.StringIO()) as said:
		tally.meson("unit", log.name)
assert said.getvalue().splitlines() == LINES, said.getvalue()
