/* SPDX-License-Identifier: Apache-2.0 */
/* What the accelerator probe guest (probe.S) says, for the guest itself and for whoever runs it.
 *
 * The guest reports twice, because a broken accelerator may stop it at any instruction:
 *
 *  - Before each test it writes the test's word to PROBE_DEBUG_PORT, after it " ok\n", or
 *    " absent\n" if CPUID does not promise the feature (that is no failure).  At the very end it
 *    writes "passed\n".  So the first word of the last line is either "passed" or the test during
 *    which the guest stopped.  An empty text means that not one instruction of it has run.
 *  - At the end, or if a test fails in a way the guest can notice (wrong result, unexpected
 *    exception), it ends QEMU through isa-debug-exit.
 *
 * How to read the end of QEMU:
 *
 *   exit status PROBE_EXIT_STATUS(c)   the guest said `c`: passed, or this test failed
 *   exit status 0                      triple fault (with -no-reboot): see the last line
 *   exit status 1                      QEMU did not start, e.g. no /dev/kvm: see its stderr
 *   no end before the deadline         stopped or hung: see the last line.  KVM's "internal error"
 *                                      is of this kind: QEMU stops the guest and stays.
 */
#pragma once

#define PROBE_DEBUG_PORT 0x402 /* isa-debugcon */
#define PROBE_EXIT_PORT 0xf4   /* isa-debug-exit */

/* What isa-debug-exit makes of a code.  Codes start at 0x10 to keep clear of QEMU's own 0 and 1. */
#define PROBE_EXIT_STATUS(code) (((code) << 1) | 1)

/* Name, code, word; in the order in which they run.  A test needs all those before it, so the
 * first failure is the only one known. */
/* clang-format off */
#define PROBE_TESTS(test) \
	test(REAL_MODE,      0x20, "real-mode") \
	test(PROTECTED_MODE, 0x21, "protected-mode") \
	test(IRET32,         0x22, "iret32") \
	test(CPUID,          0x23, "cpuid") \
	test(EFER,           0x24, "efer") \
	test(LONG_MODE,      0x25, "long-mode") \
	test(IRETQ,          0x26, "iretq") \
	test(INT3,           0x27, "int3") \
	test(CMPXCHG16B,     0x28, "cmpxchg16b") \
	test(XSAVE,          0x29, "xsave")
/* clang-format on */

#define PROBE_PASSED_CODE 0x10
#define PROBE_PASSED_WORD "passed"

#ifndef __ASSEMBLER__
enum probe_result {
	PROBE_PASSED = PROBE_PASSED_CODE,
#define PROBE_ENUMERATOR(name, code, word) PROBE_##name = (code),
	PROBE_TESTS(PROBE_ENUMERATOR)
#undef PROBE_ENUMERATOR
};
#endif
