/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port_life.pml - the life of a worker port between the control thread (dataplane/glue.c) and the
 * lcore (dataplane/core.c): opened and attached, used, lost when its socket closes, released by the
 * lcore once every open request has been told, then destroyed. A second worker follows the first.
 *
 * Shown: nobody touches a port that was destroyed; each request ends exactly once, with its answer
 * or with the news that its worker is gone; both threads get to the end (no lost wake-up).
 *
 * BROKEN_1  the port is handed over before its socket is watched, and destroyed if that fails
 * BROKEN_2  the control thread destroys a lost port without waiting for `released`
 * BROKEN_3  the lcore lets go of a lost port before it has told its requests
 * BROKEN_4  the lcore gives requests to a lost port
 * BROKEN_5  the lcore is not woken when a port is lost
 * BROKEN_6  what is in the ring of a lost port is sent after its requests were told
 * BROKEN_7  the lcore, woken, sleeps once more before it looks what for
 */
#define PORTS    2
#define REQUESTS 3
#define NONE     255

#define FREE     0
#define OPEN     1
#define FINISHED 2

bool lost[PORTS];
bool released[PORTS];
bool destroyed[PORTS];
bool attached[PORTS];      /* the worker may use it */
bool dead[PORTS];          /* the worker's socket is closed */
byte incoming = NONE;
bool wake = false;         /* the lcore's eventfd */
bool finished = false;     /* the control thread has let go of all ports */

byte inflight[REQUESTS];   /* of the port that the lcore has */
byte cursor;               /* port->lost_cursor */
byte given[REQUESTS];      /* which worker has it, counted from 1 */
bool in_ring[REQUESTS];    /* its answer lies in the ring */
byte ended[REQUESTS];      /* how often the client heard its end */
byte asked = 0;            /* requests that have come */

/* ---- the worker: answers or not, and may die at any moment ---- */
proctype worker(byte me)
{
    byte r;
    attached[me];
    do
    :: true -> break
    :: for (r : 0 .. REQUESTS - 1) {
           if
           :: atomic { given[r] == me + 1 -> in_ring[r] = true; given[r] = 0 }
           :: true
           fi
       }
       break
    od;
    dead[me] = true
}

/* ---- the control thread ---- */
proctype control()
{
    byte p = 0;
    do
    :: p == PORTS -> break
    :: else ->
        if
        :: true ->         /* attached and watched */
            incoming = p;
            attached[p] = true;
            wake = true;
            dead[p];       /* on_port_readable() */
            lost[p] = true;
#ifndef BROKEN_5
            wake = true;
#endif
#ifndef BROKEN_2
            released[p];   /* reap_port(), on a tick */
#endif
            destroyed[p] = true
        :: true ->         /* its socket cannot be watched */
#ifdef BROKEN_1
            incoming = p;
            wake = true;
#endif
            attached[p] = true;
            destroyed[p] = true
        fi;
        p++
    od;
    finished = true;
    wake = true
}

/* ---- the lcore ---- */
inline tell(r)
{
    ended[r]++;
    assert(ended[r] == 1)
}

inline pop_answer()        /* `found` says whether there was one */
{
    found = false;
    for (r : 0 .. REQUESTS - 1) {
        if
        :: !found && in_ring[r] && inflight[r] == OPEN ->
            in_ring[r] = false;
            inflight[r] = FINISHED;
            found = true;
            tell(r)
        :: else
        fi
    }
}

/* Tells the next open request; `found` as above. Later requests lie before earlier ones, so that one
 * given away too late lies behind the cursor, as a hash may have it. */
inline next_open()
{
    found = false;
    do
    :: cursor == REQUESTS || found -> break
    :: else ->
        r = REQUESTS - 1 - cursor;
        if
        :: inflight[r] == OPEN ->
            inflight[r] = FINISHED;
            found = true;
            tell(r)
        :: else
        fi;
        cursor++
    od
}

inline let_go()
{
    cursor = 0;
    for (r : 0 .. REQUESTS - 1) {
        assert(inflight[r] != OPEN);
        inflight[r] = FREE;
        in_ring[r] = false;
        given[r] = 0
    }
    r = port;
    port = NONE;
    released[r] = true
}

inline poll_worker()
{
    atomic {
        if
        :: port == NONE -> port = incoming; incoming = NONE
        :: else
        fi
    }
    if
    :: port != NONE ->
        assert(!destroyed[port]);
#ifdef BROKEN_6
        gone = lost[port];
        if
        :: gone -> atomic { next_open() }
        :: else -> found = false
        fi;
        if
        :: !found -> atomic { in_ring_any() }
        :: else
        fi;
#else
        atomic { pop_answer() }
        gone = false;
        if
        :: !found ->
            gone = lost[port];
            if
#ifndef BROKEN_3
            :: gone -> atomic { next_open() }
#endif
            :: else
            fi
        :: else
        fi;
#endif
        if
        :: gone && !found -> atomic { let_go() }
        :: else
        fi
    :: else
    fi
}

inline in_ring_any()       /* BROKEN_6: what lies in the ring goes out, known or not */
{
    found = false;
    for (r : 0 .. REQUESTS - 1) {
        if
        :: !found && in_ring[r] ->
            in_ring[r] = false;
            inflight[r] = FINISHED;
            found = true;
            tell(r)
        :: else
        fi
    }
}

inline deliver()
{
    if
    :: port == NONE -> tell(asked)     /* refused */
    :: else ->
        assert(!destroyed[port]);
        if
#ifndef BROKEN_4
        :: lost[port] -> tell(asked)
#endif
        :: else ->
            inflight[asked] = OPEN;
            given[asked] = port + 1
        fi
    fi;
    asked++
}

inline sleep()
{
    atomic {
        (wake || (in_ring[0] && inflight[0] == OPEN) || (in_ring[1] && inflight[1] == OPEN) ||
         (in_ring[2] && inflight[2] == OPEN)) -> wake = false
    }
}

proctype lcore()
{
    byte port = NONE;
    byte r;
    bool found;
    bool gone;
    do
    :: true ->
        poll_worker();
        if
        :: asked < REQUESTS -> deliver()
        :: true
        fi;
        if
        :: finished && port == NONE && incoming == NONE && asked == REQUESTS -> break
        :: port != NONE && !found && !gone && asked == REQUESTS ->
            /* Sleeps until the control thread or an answer wakes it. */
            sleep();
#ifdef BROKEN_7
            sleep()
#endif
        :: port == NONE && asked == REQUESTS && !finished -> atomic { wake -> wake = false }
        :: else
        fi
    od;
    for (r : 0 .. REQUESTS - 1) {
        assert(ended[r] == 1)
    }
}

init
{
    atomic {
        byte i;
        for (i : 0 .. PORTS - 1) {
            run worker(i)
        }
        run control();
        run lcore()
    }
}
