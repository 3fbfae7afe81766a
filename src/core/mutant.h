/* SPDX-License-Identifier: Apache-2.0 */
/* The wrong rules of the ownership protocol's section 13.  In a program of ours MUTANT(x) is false
 * and gone; tests/sim compiles core a second time with them and shows that each is caught. */
#pragma once

enum mutant {
	MUTANT_NONE,
	MUTANT_TAKE_WITHOUT_STOPPED,
	MUTANT_STOPPED_BEFORE_COMPLETE,
	MUTANT_CONT_WITHOUT_TAKEBACK,
	MUTANT_CONT_AFTER_LEASE,
	MUTANT_READ_IS_ENOUGH,
	MUTANT_NO_TAKEBACK,
	MUTANT_RECEIVER_REUSED,
	MUTANT_SECOND_RECEIVER,
	MUTANT_START_WHILE_MOVING,
	MUTANT_KILL_FEEDER,
	MUTANT_COLD_BEFORE_LOSS_PROOF,
	MUTANT_DESTROY_WHILE_UNANSWERED,
	MUTANT_GIVE_WITH_A_COPY,
	MUTANT_HOME_STAYS,
	MUTANT_STOP_WITHOUT_BACK,
	MUTANT_LOADED_TOO_EARLY,
	MUTANT_GIVE_UP_IN_POSTCOPY,
	MUTANT_RECEIVER_REPLACED,
	MUTANT_CLAIMS_WEAR_OFF,
	MUTANTS,
};

#ifdef DROVER_MUTANTS
extern enum mutant mutant_now;
#define MUTANT(name) (mutant_now == MUTANT_##name)
#else
#define MUTANT(name) (0)
#endif
