/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.pml - schemas/base/ring.h: one producer, one consumer, indexes that wrap, and the protocol by
 * which the consumer sleeps on an eventfd and the producer wakes it.
 *
 * Shown: entries come once, in order and whole; no entry is overwritten before it was given back; no
 * wake-up is lost (that would be a deadlock here); at most one wake-up per sleep.
 *
 * Spin's memory is sequentially consistent. What the two fences of the code are for is a processor
 * that lets loads pass earlier stores, so each process has a store buffer of one entry here: a store
 * goes there, the process `drain` moves it to memory some time later, a second store waits for the
 * first, and a fence or an atomic exchange waits until the buffer is empty.
 *
 * BROKEN_1  no fence in ring_must_wake()
 * BROKEN_2  no fence in ring_sleep_begin()
 * BROKEN_3  ring_sleep_begin() does not look again after its announcement
 * BROKEN_4  ring_commit() before the slot is filled
 * BROKEN_5  ring_reserve() does not look whether the ring is full
 * BROKEN_6  ring_release() before the entry was copied
 */
#define SLOTS    2
#define INDEXES  8         /* they wrap here; in the code at 2^32 */
#define MESSAGES 10

#define HEAD     0
#define TAIL     1
#define ASLEEP   2
#define SLOT     3         /* and SLOT + 1 */

#define PRODUCER 0
#define CONSUMER 1

byte memory[5];
bool pending[2];
byte variable[2];
byte stored[2];
bool eventfd = false;
byte wakes = 0;
byte sleeps = 0;

inline fence(me)
{
    !pending[me]
}

inline store(me, name, value)
{
    atomic {
        !pending[me];
        variable[me] = name;
        stored[me] = value;
        pending[me] = true
    }
}

proctype drain(byte me)
{
end:
    do
    :: atomic { pending[me] -> memory[variable[me]] = stored[me]; pending[me] = false }
    od
}

inline wake_if_asleep()
{
#ifndef BROKEN_1
    fence(PRODUCER);
#endif
    seen = memory[ASLEEP];
    if
    :: seen == 0
    :: else ->
        atomic {           /* atomic_exchange */
            fence(PRODUCER);
            seen = memory[ASLEEP];
            memory[ASLEEP] = 0
        }
        if
        :: seen == 0
        :: else ->
            wakes++;
            assert(wakes <= sleeps);
            eventfd = true
        fi
    fi
}

proctype producer()
{
    byte index = 0;
    byte message;
    byte seen;
    for (message : 1 .. MESSAGES) {
#ifndef BROKEN_5
        seen = memory[TAIL];
        if
        :: (index - seen + INDEXES) % INDEXES < SLOTS
        :: else ->         /* full: tell the consumer what there is, try again */
            wake_if_asleep();
            (index - memory[TAIL] + INDEXES) % INDEXES < SLOTS
        fi;
#endif
#ifdef BROKEN_4
        index = (index + 1) % INDEXES;
        store(PRODUCER, HEAD, index);
        store(PRODUCER, SLOT + (index + INDEXES - 1) % SLOTS, message);
#else
        store(PRODUCER, SLOT + index % SLOTS, message);
        index = (index + 1) % INDEXES;
        store(PRODUCER, HEAD, index);
#endif
        if
        :: true            /* more of the same burst follows */
        :: true -> wake_if_asleep()
        fi
    }
    wake_if_asleep()
}

proctype consumer()
{
    byte index = 0;
    byte expected = 1;
    byte head;
    do
    :: expected > MESSAGES -> break
    :: else ->
        head = memory[HEAD];
        if
        :: head != index ->
            assert((head - index + INDEXES) % INDEXES <= SLOTS);
#ifdef BROKEN_6
            store(CONSUMER, TAIL, (index + 1) % INDEXES);
#endif
            assert(memory[SLOT + index % SLOTS] == expected);
            assert(memory[SLOT + index % SLOTS] == expected); /* until it is copied */
            expected++;
            index = (index + 1) % INDEXES;
#ifndef BROKEN_6
            store(CONSUMER, TAIL, index)
#endif
        :: else ->         /* ring_sleep_begin() */
            sleeps++;
            store(CONSUMER, ASLEEP, 1);
#ifndef BROKEN_2
            fence(CONSUMER);
#endif
#ifndef BROKEN_3
            head = memory[HEAD];
#endif
            if
            :: head != index
            :: else -> atomic { eventfd -> eventfd = false }
            fi;
            store(CONSUMER, ASLEEP, 0)
        fi
    od
}

init
{
    atomic {
        run drain(PRODUCER);
        run drain(CONSUMER);
        run producer();
        run consumer()
    }
}
