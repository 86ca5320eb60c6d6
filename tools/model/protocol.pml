/*
 * Model of how a job in parts gets its outcome: the streams CROPS, PARTS and
 * RESULTS, the consumer join on PARTS, one classify worker, two replicas of
 * results, one sweeper and one cancel. README.md lists what the model contains
 * and omits, and the Go function of each transition. tools/scripts/model checks
 * every variant.
 *
 * Each process is a loop of guarded commands. One command is one atomic step.
 * Between two steps every other process may run, and a process may crash.
 * Budgets bound the faults, so that every run ends.
 */

/* ---- Constants and variants, set by tools/scripts/model ---- */

#ifndef JOBS
#define JOBS 2                    /* accepted jobs, of two parts each: 2 or 3 */
#endif
#ifndef CRASHES
#define CRASHES 0                 /* of classify, a replica, the sweeper or cancel */
#endif
#ifndef LOST_ACKS
#define LOST_ACKS 0               /* acknowledgements that do not reach the consumer join */
#endif
#ifndef LATE_DUPLICATES
#define LATE_DUPLICATES 0         /* parts that are published again after the dedupe window */
#endif
#ifndef EARLY_REDELIVERIES
#define EARLY_REDELIVERIES 0      /* redeliveries of a message that a live replica still handles */
#endif
#ifndef STALE_COUNTS
#define STALE_COUNTS 0            /* counts of parts that miss a stored part */
#endif
#ifndef LOST_PROPOSALS
#define LOST_PROPOSALS 0          /* outcomes that a leader of RESULTS loses before they are committed */
#endif

/*
 * Parts of the model that a variant may leave out or add:
 *   NO_CANCEL                 no job is cancelled
 *   NO_DEADLINE               no deadline passes
 *   NO_SWEEPER                there is no sweeper
 *   EXPIRY                    messages expire after the deadline
 *   REPLICATED                RESULTS has replicas: an outcome is proposed first and committed later
 *
 * Mutants:
 *   PURGE                     the parts of a joined job are purged by subject
 *   SWEEPER_WITHOUT_EXPECTED_SEQUENCE
 *   CONFLICT_IS_SUCCESS       a conflict with a proposal in flight counts as a stored outcome
 *   EXPIRY_BEFORE_SWEEP       messages expire although no sweep has seen their job after its deadline
 *   RESULTS_FORGETS           an outcome may leave RESULTS before the messages of its job are gone
 */

#define N       (2 * JOBS)             /* parts of all jobs */
#define LAST    (N + LATE_DUPLICATES)  /* highest sequence of PARTS */
#define JOB(p)  ((p) / 2)              /* parts 2j and 2j+1 are those of job j */
#define BIT(i)  (1 << (i))

mtype = { none, done, expired, cancelled };           /* outcomes */
mtype = { idle, publish, await, remove, ack };         /* steps of a process */

/* ---- State ---- */

mtype outcome[JOBS] = none;       /* RESULTS: what a client sees */

byte crops = BIT(N) - 1;          /* messages in CROPS, by bit */
byte published = 0;               /* message ids that PARTS knows, by bit */

byte sequenceOf[N] = 0;           /* PARTS: sequence of the message on a subject, 0 for none */
byte partAt[LAST + 1] = 0;        /* PARTS: which part was stored with a sequence */
byte last = 0;                    /* PARTS: last sequence */

byte pending[LAST + 1] = 0;       /* join: delivery sequence of an unacknowledged message, 0 for none */
byte nextSequence = 1;            /* join: o.sseq */
byte nextDelivery = 1;            /* join: o.dseq */
byte streamFloor = 0;             /* join: o.asflr */
byte deliveryFloor = 0;           /* join: o.adflr */
byte buffer = 0;                  /* deliveries in the buffers of live replicas, by bit */
byte handled[2] = 0;              /* the delivery that each replica handles, 0 for none */

byte crashes = CRASHES;
byte lostAcks = LOST_ACKS;
byte lateDuplicates = LATE_DUPLICATES;
#if EARLY_REDELIVERIES
byte earlyRedeliveries = EARLY_REDELIVERIES;
#endif
#if STALE_COUNTS
byte staleCounts = STALE_COUNTS;
#endif
#ifdef REPLICATED
mtype proposal[JOBS] = none;      /* RESULTS: outcome in flight */
byte lostProposals = LOST_PROPOSALS;
#endif
#ifdef RESULTS_FORGETS
byte hadOutcome = 0;              /* jobs whose outcome was stored at some time, by bit */
#endif

/* The properties. An assertion that fails names one of them. */
bit outcomeChanged = false;       /* an outcome was written where a client may have seen one */
bit jobWithoutOutcome = false;    /* no step is left, and an accepted job has no outcome */
bit wrongOutcome = false;         /* no step is left, and an outcome is neither done nor the cancellation of job 0 */
bit messageForgotten = false;     /* join forgot a stored message that was not acknowledged */

byte i, j, d;                     /* scratch of one step, 0 between steps */

#define HAS_CROP(p)   (crops & BIT(p))
#define HAS_PART(p)   (sequenceOf[p] != 0)
#define STORED(s)     (partAt[s] < N && sequenceOf[partAt[s]] == (s) && (s) != 0)
#define COMPLETE(job) (HAS_PART(2 * (job)) && HAS_PART(2 * (job) + 1))
#define HAS_CROPS(job) ((crops & (3 << (2 * (job)))) != 0)
#define WAITS(job)    (HAS_CROPS(job) || HAS_PART(2 * (job)) || HAS_PART(2 * (job) + 1))

#ifdef RESULTS_FORGETS
#define ENDED(job)    (hadOutcome & BIT(job))
#else
#define ENDED(job)    (outcome[job] != none)
#endif

/*
 * A deadline may pass at any time. Only the sweeper and the expiry of messages
 * depend on it. The model has no state for a passed deadline: the sweeper may end
 * a job at any time.
 *
 * A message expires some time after its deadline. The model assumes that a sweep
 * that began after the deadline is complete before. Such a sweep writes a missing
 * outcome. Therefore only a message of a job with an outcome may expire.
 */
#if !defined(EXPIRY)
#define MAY_EXPIRE(job) false
#elif defined(EXPIRY_BEFORE_SWEEP)
#define MAY_EXPIRE(job) true
#else
#define MAY_EXPIRE(job) (outcome[job] != none)
#endif

/* ---- RESULTS ---- */

/* storeOutcome is the only step that writes an outcome. */
inline storeOutcome(job, what) {
	if
	:: ENDED(job) -> outcomeChanged = true
	:: else
	fi;
	assert(!outcomeChanged);
#ifdef RESULTS_FORGETS
	hadOutcome = hadOutcome | BIT(job);
#endif
	outcome[job] = what;
	printf("RESULTS stores outcome %e of job %d\n", what, job)
}

#ifdef REPLICATED
#define FREE(job)       (outcome[job] == none && proposal[job] == none)
#define IN_FLIGHT(job)  (outcome[job] == none && proposal[job] != none)
/* The server replies when the proposal is committed. The step await waits for it. */
#define WRITE(job, what, next) \
	proposal[job] = what; step = await; printf("outcome %e of job %d is proposed\n", what, job)
#else
#define FREE(job)       (outcome[job] == none)
#define WRITE(job, what, next)  storeOutcome(job, what); step = next
#endif

/* ---- The consumer join, as nats-server implements it ---- */

/* firstPending sets j to the first pending sequence from `from` on, or LAST + 1. */
inline firstPending(from) {
	j = from;
	do
	:: j <= LAST && pending[j] == 0 -> j++
	:: else -> break
	od
}

/* resetFloors stands for what every path does when nothing is pending. */
inline resetFloors() {
	deliveryFloor = nextDelivery - 1;
	streamFloor = nextSequence - 1
}

/* acknowledge is processAckMsg and moveAckFloor. Acks of what is not pending do nothing. */
inline acknowledge(s) {
	if
	:: pending[s] != 0 ->
		d = pending[s];
		pending[s] = 0;
		firstPending(1);
		if
		:: j > LAST -> resetFloors()
		:: j <= LAST && d == deliveryFloor + 1 ->
			deliveryFloor = d;
			streamFloor = s;
			firstPending(s + 1);
			if
			:: j <= LAST -> deliveryFloor = pending[j] - 1; streamFloor = j - 1
			:: else
			fi
		:: else
		fi;
		j = 0;
		d = 0
	:: else
	fi
}

/*
 * removed follows when a single message leaves PARTS, because it is deleted,
 * replaced or expired: the server processes that like an acknowledgement of it.
 */
inline removed(s) {
	printf("sequence %d leaves PARTS\n", s);
	acknowledge(s)
}

/* ---- PARTS ---- */

/* storePart stores part p; MaxMsgsPerSubject = 1 removes the message before it. */
inline storePart(p) {
	last++;
	i = sequenceOf[p];
	partAt[last] = p;
	sequenceOf[p] = last;
	published = published | BIT(p);
	printf("PARTS stores part %d of job %d with sequence %d\n", p % 2, JOB(p), last);
	if
	:: i != 0 -> removed(i)
	:: else
	fi;
	i = 0
}

/* deletePart deletes by sequence. */
inline deletePart(s) {
	i = s;
	if
	:: STORED(i) -> sequenceOf[partAt[i]] = 0; removed(i)
	:: else
	fi;
	i = 0
}

/* firstStored sets i to the first sequence of PARTS, or last + 1 when it is empty. */
inline firstStored() {
	i = 1;
	do
	:: i <= last && !STORED(i) -> i++
	:: else -> break
	od
}

/* checkPending drops what is below the floor. */
#define IS_BELOW_FLOOR(s)  (pending[s] != 0 && (s) <= streamFloor)

/* purge is consumer.purge with isWider, after the messages of the job are gone. */
inline purge(job) {
	sequenceOf[2 * (job)] = 0;
	sequenceOf[2 * (job) + 1] = 0;
	printf("the parts of job %d are purged by subject\n", job);
	firstStored();
	if
	:: nextSequence < i -> nextSequence = i
	:: else
	fi;
	if
	:: streamFloor < i ->
		streamFloor = i - 1;
		j = 1;
		do
		:: j <= LAST ->
			if
			:: pending[j] != 0 && (j <= streamFloor || !STORED(j)) ->
				if
				:: pending[j] > deliveryFloor -> deliveryFloor = pending[j]
				:: else
				fi;
				pending[j] = 0
			:: else
			fi;
			j++
		:: else -> break
		od
	:: else
	fi;
	firstPending(1);
	if
	:: j > LAST -> resetFloors()
	:: else
	fi
}

/* forget is checkPending, which runs when an AckWait has passed. */
inline forget(s) {
#ifndef PURGE
	if
	:: STORED(s) -> messageForgotten = true
	:: else
	fi;
	assert(!messageForgotten);
#endif
	if
	:: pending[s] > deliveryFloor -> deliveryFloor = pending[s]
	:: else
	fi;
	pending[s] = 0;
	printf("join forgets sequence %d\n", s);
	firstPending(1);
	if
	:: j > LAST -> resetFloors()
	:: else
	fi
}

/* deliver puts a message into the buffer of a replica. Which one does not matter until it handles it or dies. */
inline deliver(s) {
	buffer = buffer | BIT(s);
	printf("join delivers sequence %d\n", s)
}

/*
 * redeliver delivers a message again. The server increments its delivery sequence,
 * and keeps the first delivery sequence of the message as pending. Without a purge
 * the gap has no effect, because a floor that moves stops right below the first
 * pending message.
 */
inline redeliver(s) {
#if defined(PURGE) || defined(NO_SWEEPER)
	nextDelivery++;
#endif
	deliver(s)
}

#define IS_BUFFERED(s)     ((buffer & BIT(s)) != 0)
#define IS_HANDLED(s)      (handled[0] == (s) || handled[1] == (s))
#define CAN_REDELIVER(s)   (pending[s] != 0 && STORED(s) && (s) > streamFloor && !IS_BUFFERED(s))
#define MUST_REDELIVER(s)  (CAN_REDELIVER(s) && !IS_HANDLED(s))
#define REDELIVER_EARLY(s) (CAN_REDELIVER(s) && IS_HANDLED(s) && earlyRedeliveries > 0)
#define IS_GONE(s)         (pending[s] != 0 && !STORED(s) && (s) > streamFloor)

/*
 * chooseSequence, choosePart and chooseJob set i to any number for which CONDITION
 * is true. They block when no number exists, and begin an atomic step.
 */
#if LAST == 4
#define chooseSequence(CONDITION) \
	if :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 :: CONDITION(3) -> i = 3 :: CONDITION(4) -> i = 4 fi
#elif LAST == 5
#define chooseSequence(CONDITION) \
	if :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 :: CONDITION(3) -> i = 3 :: CONDITION(4) -> i = 4 \
	:: CONDITION(5) -> i = 5 fi
#elif LAST == 6
#define chooseSequence(CONDITION) \
	if :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 :: CONDITION(3) -> i = 3 :: CONDITION(4) -> i = 4 \
	:: CONDITION(5) -> i = 5 :: CONDITION(6) -> i = 6 fi
#endif
#if JOBS == 2
#define choosePart(CONDITION) \
	if :: CONDITION(0) -> i = 0 :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 :: CONDITION(3) -> i = 3 fi
#define chooseJob(CONDITION) \
	if :: CONDITION(0) -> i = 0 :: CONDITION(1) -> i = 1 fi
#elif JOBS == 3
#define choosePart(CONDITION) \
	if :: CONDITION(0) -> i = 0 :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 :: CONDITION(3) -> i = 3 \
	:: CONDITION(4) -> i = 4 :: CONDITION(5) -> i = 5 fi
#define chooseJob(CONDITION) \
	if :: CONDITION(0) -> i = 0 :: CONDITION(1) -> i = 1 :: CONDITION(2) -> i = 2 fi
#endif

/* join is the server's side of the consumer. */
active proctype join() {
end:	do
	:: d_step {  /* deliver the next stored message */
		nextSequence <= last ->
		if
		:: STORED(nextSequence) ->
			pending[nextSequence] = nextDelivery;
			nextDelivery++;
			deliver(nextSequence)
		:: else  /* it was deleted before */
		fi;
		nextSequence++
	}
	:: atomic {  /* deliver a message again that no live replica holds */
		chooseSequence(MUST_REDELIVER);
		d_step { redeliver(i); i = 0 }
	}
#if EARLY_REDELIVERIES
	:: atomic {  /* deliver a message again whose AckWait has passed while a live replica handles it */
		chooseSequence(REDELIVER_EARLY);
		d_step { earlyRedeliveries--; redeliver(i); i = 0 }
	}
#endif
	:: atomic {  /* a purged message that is still pending leaves when its turn to be delivered again comes */
		chooseSequence(IS_GONE);
		d_step { acknowledge(i); i = 0 }
	}
	:: atomic {
		chooseSequence(IS_BELOW_FLOOR);
		d_step { forget(i); i = 0; j = 0 }
	}
	od
}

/* ---- classify ---- */

/* The parts of a job are alike, so one order of their first publish is enough. */
#ifdef NO_CANCEL
#define IN_ORDER(p)  ((p) < 2 || (published & 1))  /* and the jobs too */
#else
#define IN_ORDER(p)  true
#endif
#define BEFORE(p)    ((p) - (p) % 2)
#define IS_NEXT(p)   ((p) % 2 == 0 || (published & BIT(BEFORE(p))) || !HAS_CROP(BEFORE(p)))
#define CAN_TAKE(p)  (step == idle && HAS_CROP(p) && IS_NEXT(p) && IN_ORDER(p))

/* finishPart acknowledges the message in CROPS, which removes it. */
inline finishPart() {
	crops = crops & ~BIT(p);
	p = 0;
	step = idle
}

/* publishPart stores a part, or PARTS drops it as a duplicate. After the dedupe window it stores it again. */
inline publishPart() {
	if
	:: !(published & BIT(p)) -> storePart(p)
	:: (published & BIT(p)) && lateDuplicates > 0 -> lateDuplicates--; storePart(p)
	:: else  /* dropped */
	fi;
	if
	:: lateDuplicates > 0 && crashes > 0 -> step = ack
	:: else -> finishPart()
	fi
}

/*
 * classify is one worker. It receives a CROPS message, publishes the part, and
 * acknowledges. A crash before the publish has no effect, so the model has no such
 * step. A crash before the acknowledgement has an effect only when a late duplicate
 * follows, because PARTS drops an earlier duplicate.
 */
active proctype classify() {
	byte p;
	mtype step = idle;
end:	do
	:: atomic {
		choosePart(CAN_TAKE);
		p = i;
		i = 0;
		if
#if defined(EXPIRY) || !defined(NO_CANCEL)
		:: step = publish  /* its message in CROPS may be deleted meanwhile */
#endif
		:: d_step { publishPart() }
		fi
	}
	:: d_step { step == publish -> publishPart() }
	:: d_step { step == ack -> finishPart() }
	:: d_step {
		step == ack && crashes > 0 ->
		crashes--;
		printf("classify dies with part %d of job %d\n", p % 2, JOB(p));
		p = 0;
		step = idle
	}
	od
}

/* ---- results: join ---- */

/* The replicas are alike, so the second one needs to run only while the first one is busy. */
#define CAN_HANDLE(s)  (step == idle && IS_BUFFERED(s) && (r == 0 || handled[0] != 0))

/* rest is the end of a delivery. */
inline rest() { handled[r] = 0; job = 0; first = 0; second = 0; step = idle }

/* finish continues with the acknowledgement. The acknowledgement of a message that has left PARTS has no effect. */
inline finish() {
	first = 0;
	second = 0;
	if
	:: pending[handled[r]] != 0 -> step = ack
	:: else -> rest()
	fi
}

/* die loses the handled delivery and the buffer of the replica, which is any part of the buffers. */
inline die() {
	crashes--;
	printf("a replica dies while it handles sequence %d (0: none)\n", handled[r]);
	rest();
	i = 1;
	do
	:: i <= LAST && IS_BUFFERED(i) -> buffer = buffer & ~BIT(i); printf("sequence %d was in its buffer\n", i); i++
	:: i <= LAST -> i++
	:: i > LAST -> break
	od;
	i = 0
}

/* replica handles one delivery at a time; r is 0 or 1. */
proctype replica(byte r) {
	byte job;            /* of the delivery */
	byte first, second;  /* sequences of the parts that were read */
	mtype step = idle;
end:	do
	:: atomic {  /* count the parts and read them */
		chooseSequence(CAN_HANDLE);
		d_step { handled[r] = i; buffer = buffer & ~BIT(i); job = JOB(partAt[i]); i = 0 };
		if
		:: COMPLETE(job) ->
			d_step { first = sequenceOf[2 * job]; second = sequenceOf[2 * job + 1]; step = publish }
		:: !COMPLETE(job) -> finish()
#if STALE_COUNTS
		:: COMPLETE(job) && staleCounts > 0 ->
			d_step { staleCounts--; printf("a replica misses a part of job %d\n", job); finish() }
#endif
		fi
	}
	:: d_step { step == publish && FREE(job) -> WRITE(job, done, remove) }
	:: d_step { step == publish && outcome[job] != none -> step = remove }  /* another writer was first */
#ifdef REPLICATED
	:: d_step { step == await && outcome[job] != none -> step = remove }
	:: d_step { step == await && FREE(job) -> step = publish }  /* no reply: publish again */
#ifdef CONFLICT_IS_SUCCESS
	:: d_step { step == publish && IN_FLIGHT(job) -> step = remove }
#endif
#endif
#ifdef PURGE
	:: d_step { step == remove -> purge(job); i = 0; j = 0; finish() }
#else
	:: d_step { step == remove && STORED(first) -> deletePart(first) }
	:: d_step { step == remove && !STORED(first) -> deletePart(second); finish() }
#endif
	:: d_step {
		step == ack ->
		printf("sequence %d is acknowledged\n", handled[r]);
		i = handled[r];
		acknowledge(i);
		i = 0;
		rest()
	}
	:: d_step {
		step == ack && lostAcks > 0 ->
		lostAcks--;
		printf("the acknowledgement of sequence %d is lost\n", handled[r]);
		rest()
	}
	:: atomic { crashes > 0 && (step != idle || buffer != 0) -> die() }
	od
}

/* ---- results: sweeper ---- */

#define CAN_JOIN(job)  (step == idle && COMPLETE(job) && outcome[job] == none)
#define CAN_END(job)   (step == idle && WAITS(job) && outcome[job] == none)

#ifndef NO_SWEEPER
/*
 * sweeper reads the state of a job, and writes the outcome that it decided from
 * that state. It repeats this; a read without a write is no step. It deletes no
 * message.
 *
 * The state that it has read stays valid until the job has an outcome. When its
 * write expects that there is no outcome, the read and the write can be one step,
 * and a crash between them has no effect.
 */
active proctype sweeper() {
#if defined(SWEEPER_WITHOUT_EXPECTED_SEQUENCE) || defined(REPLICATED)
	byte job;
	mtype step = idle;
	mtype what = none;
end:	do
	:: atomic { chooseJob(CAN_JOIN); d_step { job = i; i = 0; what = done; step = publish } }
#ifndef NO_DEADLINE
	:: atomic { chooseJob(CAN_END); d_step { job = i; i = 0; what = expired; step = publish } }
#endif
#ifdef SWEEPER_WITHOUT_EXPECTED_SEQUENCE
	:: d_step { step == publish -> WRITE(job, what, remove) }
#else
	:: d_step { step == publish && FREE(job) -> WRITE(job, what, remove) }
#endif
	:: d_step { step == publish && outcome[job] != none -> step = remove }  /* another writer was first */
#ifdef REPLICATED
	:: d_step { step == await && outcome[job] != none -> step = remove }
	:: d_step { step == await && FREE(job) -> step = publish }
#endif
	:: d_step { step == remove -> job = 0; what = none; step = idle }
	:: d_step {
		step != idle && crashes > 0 ->
		crashes--;
		printf("the sweeper dies\n");
		job = 0;
		what = none;
		step = idle
	}
	od
#else
	mtype step = idle;
end:	do
	:: atomic { chooseJob(CAN_JOIN); d_step { storeOutcome(i, done); i = 0 } }
#ifndef NO_DEADLINE
	:: atomic { chooseJob(CAN_END); d_step { storeOutcome(i, expired); i = 0 } }
#endif
	od
#endif
}
#endif

/* ---- results: cancel ---- */

#ifndef NO_CANCEL
#define CAN_DELETE(p)  (step == remove && outcome[0] == cancelled && JOB(p) == 0 && HAS_PART(p))
#define CAN_DROP(p)    (step == remove && outcome[0] == cancelled && JOB(p) == 0 && HAS_CROP(p))

/* A client cancels job 0 once, at any time. */
active proctype cancel() {
	mtype step = idle;
end:	do
	:: d_step { step == idle && FREE(0) && WAITS(0) -> WRITE(0, cancelled, remove) }
#ifdef REPLICATED
	:: d_step { step == await && outcome[0] != none -> step = remove }
	:: d_step { step == await && FREE(0) -> step = idle }
#endif
	:: d_step { step == remove && outcome[0] != cancelled -> step = ack }  /* the response is job-finished */
	:: atomic { choosePart(CAN_DROP); d_step { crops = crops & ~BIT(i); i = 0 } }
	:: atomic { choosePart(CAN_DELETE); d_step { deletePart(sequenceOf[i]) } }
	:: d_step { step == remove && outcome[0] == cancelled && !WAITS(0) -> step = ack }
	:: d_step { step != idle && step != ack && crashes > 0 -> crashes--; step = ack; printf("cancel dies\n") }
	od
}
#endif

/* ---- Time ---- */

#define CROPS_EXPIRE(job)   (MAY_EXPIRE(job) && HAS_CROPS(job))
#define PART_EXPIRES(p)     (MAY_EXPIRE(JOB(p)) && HAS_PART(p))
#define CAN_BE_LOST(job)    (lostProposals > 0 && IN_FLIGHT(job))
#define IS_FORGOTTEN(job)   (outcome[job] != none)

active proctype time() {
end:	do
	:: false
#ifdef EXPIRY
	:: atomic {
		chooseJob(CROPS_EXPIRE);
		d_step { printf("the crops of job %d expire\n", i); crops = crops & ~(3 << (2 * i)); i = 0 }
	}
	:: atomic {
		choosePart(PART_EXPIRES);
		d_step { printf("part %d of job %d expires\n", i % 2, JOB(i)); deletePart(sequenceOf[i]) }
	}
#endif
#ifdef REPLICATED
	:: atomic { chooseJob(IN_FLIGHT); d_step { storeOutcome(i, proposal[i]); proposal[i] = none; i = 0 } }
	:: atomic {
		chooseJob(CAN_BE_LOST);
		d_step {
			printf("the proposed outcome of job %d is lost\n", i);
			lostProposals--;
			proposal[i] = none;
			i = 0
		}
	}
#endif
#ifdef RESULTS_FORGETS
	:: atomic {
		chooseJob(IS_FORGOTTEN);
		d_step { printf("RESULTS forgets the outcome of job %d\n", i); outcome[i] = none; i = 0 }
	}
#endif
	od
}

/* ---- Every run ends with an outcome of every job ---- */

active proctype observer() {
	timeout ->
	d_step {
		i = 0;
		do
		:: i < JOBS ->
			if
			:: !ENDED(i) -> jobWithoutOutcome = true
#ifdef NO_DEADLINE
			:: ENDED(i) && outcome[i] != done && !(outcome[i] == cancelled && i == 0) -> wrongOutcome = true
#endif
			:: else
			fi;
			i++
		:: else -> break
		od;
		i = 0;
		assert(!jobWithoutOutcome);
		assert(!wrongOutcome)
	}
}

init { atomic { run replica(0); run replica(1) } }
