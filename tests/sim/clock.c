/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/clock.h"

#define SECOND ((uint64_t)1000 * 1000)
#define BEGINNING (1000 * SECOND) /* of all clocks */
#define STOP (SECOND / 2)	  /* as configured: timers.lease-stop */
#define GRACE (STOP + LEASE_SCHED_USEC)
#define ANSWER SECOND /* without a fault no answer takes longer */

/* How far time goes on in one move, in milliseconds. */
static const uint16_t strides[TIME_STRIDES] = { 1, 40, 200, 600, 1500, 4000 };

/* No session ends earlier than this after a renewal reached the store (7.1). */
static uint64_t earliest(const struct rules *rules)
{
	static const uint64_t promised[] = {
		[STORE_ZOOKEEPER] = 5 * SECOND, /* a follower may die before it passes it on */
		[STORE_CONSUL] = 10 * SECOND,
		[STORE_EMBEDDED] = 6 * SECOND,
	};

	return promised[rules->store];
}

static uint64_t length(const struct rules *rules)
{
	uint64_t promised = earliest(rules);

	if (rules->wrong == WRONG_LEASE_OF_TWO_TTL)
		promised *= 2;
	return lease_length(promised, STOP);
}

/* CLOCK_BOOTTIME of node `i`. */
static uint64_t local(const struct step *step, int i)
{
	const struct time *time = &step->world->time;
	const struct node_time *node = &time->node[i];
	int64_t drift = (int64_t)time->now / 1000 * step->rules->drift[i] / 1000;
	uint64_t now = BEGINNING + time->now + (uint64_t)drift;

	if (step->rules->wrong == WRONG_WALL_CLOCK)
		now += (uint64_t)node->jumped;
	if (step->rules->wrong == WRONG_CLOCK_MONOTONIC)
		now -= node->slept;
	return now;
}

void clock_init(const struct rules *rules, struct world *world)
{
	struct step step = { .rules = rules, .world = world };

	for (int i = 0; i < rules->nodes && rules->time; i++) {
		uint64_t now = local(&step, i);

		world->time.node[i].expires = earliest(rules);
		world->time.node[i].sent = now;
		world->time.node[i].lease = (struct lease){ now, now + length(rules) };
	}
}

bool clock_lease(const struct step *step, int i)
{
	if (!step->rules->time)
		return step->world->node[i].lease;
	return step->world->time.node[i].lease.end > local(step, i);
}

enum lease_use clock_lease_use(const struct step *step, int v, int i, uint64_t left)
{
	const struct site *site = &step->world->vm[v].site[i];
	const struct time *time = &step->world->time;

	if (!step->rules->time)
		return step->world->node[i].lease ? LEASE_USABLE : LEASE_OVER;
	return lease_use((enum lease_policy)site->policy, &time->node[i].lease, time->won[v][i],
			 left, local(step, i));
}

bool clock_lease_ended(const struct step *step, int i)
{
	return step->world->time.node[i].lease.end <= local(step, i);
}

bool clock_session_ended(const struct step *step, int i)
{
	return step->world->time.now > step->world->time.node[i].expires;
}

bool clock_too_late(const struct step *step, int i)
{
	const struct time *time = &step->world->time;

	return !step->world->store_down && time->now > time->node[i].expires &&
	       time->now > time->node[i].woke + GRACE + GRACE / 50;
}

void clock_asked(struct step *step, int v, int i)
{
	step->world->time.won[v][i] = local(step, i);
}

void clock_joined(struct step *step, int i)
{
	struct node_time *node = &step->world->time.node[i];

	node->renewal = RENEWAL_NONE;
	node->another = 1;
	node->sent = 0;
	node->expires = step->world->time.now + earliest(step->rules);
}

void clock_parted(struct step *step, int i)
{
	struct node_time *node = &step->world->time.node[i];

	/* One on its way may reach the store all the same; nobody hears of it. */
	node->renewal = node->renewal == RENEWAL_SENT ? RENEWAL_ORPHAN : RENEWAL_NONE;
}

/* Each session has its whole time again. */
void clock_store_up(struct step *step)
{
	for (int i = 0; i < step->rules->nodes; i++)
		step->world->time.node[i].expires = step->world->time.now + earliest(step->rules);
}

/* ---- time goes on ---- */

static bool has_keeper(const struct step *step, int i)
{
	for (int v = 0; v < step->rules->vms; v++)
		if (step->world->vm[v].site[i].keeper == KEEPER_ALIVE)
			return true;
	return false;
}

static bool renews(const struct step *step, int i)
{
	return node_reaches_store(step->world, i) && step->world->node[i].session &&
	       !step->world->node[i].frozen;
}

static bool due(const struct step *step, int i)
{
	const struct node_time *node = &step->world->time.node[i];

	return node->sent == 0 ||
	       local(step, i) >= node->sent + lease_interval(length(step->rules));
}

static uint64_t room_until(uint64_t deadline, uint64_t now)
{
	return deadline > now ? deadline - now : 0;
}

/* How far time may go on before node `i` has to do something: the lease's end is acted upon within
 * what is reckoned for it, renewals are sent, and without a fault also answered in time. */
static uint64_t room(const struct step *step, int i)
{
	const struct node *node = &step->world->node[i];
	const struct node_time *time = &step->world->time.node[i];
	uint64_t now = local(step, i), ends = time->lease.end, left = UINT64_MAX, renewal;

	if (!node->up || node->frozen)
		return left;
	if (ends < time->woke_local)
		ends = time->woke_local;
	if (node->lease && has_keeper(step, i))
		left = room_until(ends + GRACE, now);
	if (!renews(step, i))
		return left;
	renewal = room_until(time->sent + lease_interval(length(step->rules)), now);
	if (time->renewal == RENEWAL_SENT || time->renewal == RENEWAL_LANDED)
		renewal = step->world->faults > 0 ? left : room_until(time->sent + ANSWER, now);
	return renewal < left ? renewal : left;
}

static bool time_goes_on(struct step *step)
{
	struct time *time = &step->world->time;
	uint64_t stride = strides[step->move.other] * (SECOND / 1000);

	for (int i = 0; i < step->rules->nodes; i++) {
		uint64_t left = room(step, i);

		if (left == 0)
			return false;
		/* In the time of a clock that may run faster. */
		if (left - left / 100 < stride)
			stride = left - left / 100;
	}
	time->now += stride + 1;
	for (int i = 0; i < step->rules->nodes; i++)
		if (step->world->node[i].frozen)
			time->node[i].slept += stride + 1;
	step_say(step, "%llu ms", (unsigned long long)(time->now / (SECOND / 1000)));
	return true;
}

/* ---- renewals ---- */

static bool sends_renewal(struct step *step)
{
	int i = step->move.node;
	struct node_time *node = &step->world->time.node[i];

	if (!renews(step, i) || node->renewal == RENEWAL_SENT || node->renewal == RENEWAL_LANDED ||
	    !due(step, i))
		return false;
	node->sent = local(step, i);
	node->renewal = RENEWAL_SENT;
	return true;
}

static bool renewal_lands(struct step *step)
{
	struct node_time *node = &step->world->time.node[step->move.node];

	if ((node->renewal != RENEWAL_SENT && node->renewal != RENEWAL_ORPHAN) ||
	    step->world->store_down)
		return false;
	node->renewal = node->renewal == RENEWAL_SENT && step->node->session ? RENEWAL_LANDED
									     : RENEWAL_NONE;
	if (step->node->session)
		node->expires = step->world->time.now + earliest(step->rules);
	return true;
}

static bool renewal_answered(struct step *step)
{
	int i = step->move.node;
	struct node_time *node = &step->world->time.node[i];
	uint64_t now = local(step, i);
	uint64_t sent = step->rules->wrong == WRONG_LEASE_FROM_ANSWER ? now : node->sent;

	if (node->renewal != RENEWAL_LANDED || !renews(step, i))
		return false;
	node->lease = lease_extend(&node->lease, sent, length(step->rules), now, node->another);
	node->renewal = RENEWAL_NONE;
	node->another = 0;
	if (node->lease.end > now)
		step->node->lease = 1;
	return true;
}

/* ---- suspended, and on again ---- */

static bool freezes(struct step *step)
{
	if (!step->node->up || step->node->frozen)
		return false;
	step->node->frozen = 1;
	return true;
}

static bool thaws(struct step *step)
{
	if (!step->node->frozen)
		return false;
	step->node->frozen = 0;
	step->world->time.node[step->move.node].woke = step->world->time.now;
	step->world->time.node[step->move.node].woke_local = local(step, step->move.node);
	return true;
}

bool clock_step(struct step *step)
{
	struct node_time *node = &step->world->time.node[step->move.node];

	if (!step->rules->time)
		return false;
	switch (step->move.kind) {
	case MOVE_TIME:
		return time_goes_on(step);
	case MOVE_RENEWAL_SENT:
		return sends_renewal(step);
	case MOVE_RENEWAL_LANDS:
		return renewal_lands(step);
	case MOVE_RENEWAL_ANSWERED:
		return renewal_answered(step);
	case MOVE_THAWS:
		return thaws(step);
	case FAULT_FREEZES:
		return freezes(step);
	default:
		/* FAULT_CLOCK: somebody sets the clock back */
		node->jumped -= (int64_t)(30 * SECOND);
		return true;
	}
}
