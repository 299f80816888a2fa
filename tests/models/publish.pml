/* SPDX-License-Identifier: Apache-2.0 */
/*
 * publish.pml - the routing table's pointer (dataplane/nic/publish.c over rte_rcu_qsbr): the control
 * thread swaps it, waits until every lcore has been quiescent or off-line, and frees the old table.
 * Lcores report once per burst and are off-line while they sleep, maybe for ever.
 *
 * Shown: no table is used after it was freed; the writer always gets on (claim gets_on).
 *
 * Spin's memory is sequentially consistent; an lcore's stores go through a store buffer here
 * (`pending`, drained whenever the process `drain` runs), so that the fence in thread_online matters.
 *
 * BROKEN_1  frees without waiting
 * BROKEN_2  an lcore sleeps without going off-line
 * BROKEN_3  an lcore keeps its table over a sleep
 * BROKEN_4  no fence between coming on-line and taking the pointer
 * BROKEN_5  the token is raised before the pointer is swapped
 */
#define READERS 2
#define TABLES  4
#define OFFLINE 0

byte current = 0;          /* publish->current */
bool freed[TABLES];
byte token = 1;            /* qsbr->token */
byte seen[READERS];        /* qsbr->qsbr_cnt[].cnt */
bool pending[READERS];     /* the store buffers */
byte stored[READERS];
bool done = false;

inline store(me, value)
{
    atomic {
        !pending[me];
        stored[me] = value;
        pending[me] = true
    }
}

inline come_online(me)
{
    store(me, token);
#ifndef BROKEN_4
    !pending[me]           /* the fence */
#endif
}

proctype drain(byte me)
{
end:
    do
    :: atomic { pending[me] -> seen[me] = stored[me]; pending[me] = false }
    od
}

proctype lcore(byte me)
{
    byte table;
    come_online(me);
    table = current;
    do
    :: true ->
#ifndef BROKEN_3
        table = current;
#endif
        assert(!freed[table]);  /* the stages of a burst */
        assert(!freed[table]);
        store(me, token);       /* publish_quiescent() */
        if
        :: true                 /* busy */
        :: true ->
#ifndef BROKEN_2
            store(me, OFFLINE);
#endif
            if
            :: true             /* woken */
            :: true ->
end_asleep:     false           /* nothing ever comes */
            fi;
            come_online(me)
        fi;
#ifdef BROKEN_3
        assert(!freed[table]);
        table = current
#endif
    od
}

proctype control()
{
    byte next;
    byte old;
    byte ticket;
    byte reader;
    for (next : 1 .. TABLES - 1) {
#ifdef BROKEN_5
        token = token + 1;
#endif
        atomic { old = current; current = next }
#ifndef BROKEN_5
        token = token + 1;
#endif
        ticket = token;
#ifndef BROKEN_1
        for (reader : 0 .. READERS - 1) {
            seen[reader] == OFFLINE || seen[reader] >= ticket
        }
#endif
        freed[old] = true
    }
    done = true
}

init
{
    atomic {
        byte i;
        for (i : 0 .. READERS - 1) {
            run drain(i);
            run lcore(i)
        }
        run control()
    }
}

ltl gets_on { <> done }
