/*
 * The commit-file protocol of atomicpath (atomicpath/strategies/: commit_file, claiming, clearing, register), request by
 * request. README.md here says what is modelled and what is not; check.py runs every configuration.
 *
 * One place: two data objects, the marker and the record. Writers, a sweeper and a remover send requests. Somebody may
 * copy an object of another place into it (COPIES), and another place may lie in it (NESTED): a directory of its own,
 * one object of which has the name of our second data object. A request is
 * carried out at once and answered, or it is not answered; then it is in flight, and the network carries it out at any
 * later moment or never. A process that crashes is one that takes no further step, which every run already contains;
 * its last request may arrive late because a step may be taken late. Nothing depends on time: a lease "has run out"
 * whenever the run likes, since age is politeness and never safety.
 *
 * But with TIMED, where deletes cannot be conditional: there a delete is carried out within a lease or never. A lease
 * still runs out whenever the run likes (`expire`), and then no delete that was sent before is under way any more, and
 * nobody sends one who has not moved the record since.
 */

#ifndef WRITERS
#define WRITERS 2
#endif
#ifndef SWEEPERS
#define SWEEPERS 0
#endif
#ifndef REMOVERS
#define REMOVERS 0
#endif
#ifndef LOSSES
#define LOSSES 0                /* replies that may be lost in a run */
#endif
#ifndef COPIES
#define COPIES 0                /* objects that somebody copies into the place, with the owner they had */
#endif
#ifndef TRIES
#define TRIES 2                 /* of a move of the record, and of a pass that clears */
#endif
#ifndef CLAIMS
#define CLAIMS 2                /* of the creation of the record */
#endif
#ifndef PUTS
#define PUTS 3                  /* of the creation of one data object */
#endif

#ifdef TIMED
#define NO_CONDITIONAL          /* of deletes; writes are */
#endif

#if LOSSES > 0
#define SLOTS LOSSES
#else
#define SLOTS 1
#endif

/* What the store holds. A value stands for content and version; 0: absent, ANY: no condition. */
#define DATA0    0
#define DATA1    1
#define MARKER   2
#define RECORD   3
#define INNER    4              /* the record of the place that lies in this one */
#define ANY      -1
#define LATE     2048           /* landed as the late copy of a request: equal content, another version */

/* A data object: whose, and by which of its requests. */
#define OBJECT(token, again)  ((token) | ((again) << 8))
#define OWNER(object)         ((object) & 3)
#define OTHER                 3 /* the owner of what is not this place's, with COPIES or NESTED: of two writers at most */

/* The record: token, state, renewals, and `by`: whose request made it so, and which where one sends several. */
#define WRITING    1
#define COMMITTED  2
#define DISCARDED  3
#define RECORD_OF(token, state, renewals, by)  ((token) | ((state) << 2) | ((renewals) << 4) | ((by) << 8))
#define TOKEN(record)     ((record) & 3)
#define STATE(record)     (((record) >> 2) & 3)
#define RENEWALS(record)  (((record) >> 4) & 15)
/* `took_over`: the tokens of the attempts whose place this one took. */
#define CHAIN(record)     ((record) & 28672)
#define LINK(token)       (1 << (11 + (token)))
#define CONTENT(record)   (STATE(record) == DISCARDED -> ((record) & 30719) : ((record) & 28927))
#ifdef EQUAL_VERSIONS           /* plain S3: equal bytes have equal versions */
#define VERSION(value)  CONTENT(value)
#else
#define VERSION(value)  (value)
#endif

/* Who is at work; also `by` in a record that is not `writing`. */
#define WRITER   0
#define SWEEPER  1
#define REMOVER  2

#define YES      1
#define REFUSED  2
#define SILENCE  3

short store[5];
#ifdef TIMED
bit in_time[8];                 /* by process: it may send deletes, since its last move of the record is not a lease ago */
#endif

typedef Request { byte name; short condition; short value; bit waits };
Request flight[SLOTS];
byte lost;                      /* replies lost so far */

/* What the properties need, and no process reads; by token. */
bit was_committed[4];
bit was_removed[4];
bit told_not[4];                /* the writer was told that it did not commit */
short manifest[8];              /* what a writer's manifest names: 2 * token + number */

#if defined(WITNESS) || defined(PROGRESS)
bit told_yes[4];
bit was_taken[4];
bit has_put[4];
bit has_ended[4];
byte over;                      /* writers that have ended */
#define noted(what)  what = 1
#else
#define noted(what)  skip
#endif
#ifdef WITNESS                  /* a state that must be reached, so that the model is known not to be empty */
#define witness(number, seen)  assert(WITNESS != number || !(seen))
#else
#define witness(number, seen)  skip
#endif

/* Every safety property of the place itself is asserted here, after each change of it. */
inline carry_out(which, from, to) {
  if
  :: (from) == ANY || VERSION(store[which]) == VERSION(from) ->
#if defined(NESTED) || COPIES > 0                          /* nobody deletes or replaces what is another's */
     assert(which == RECORD || OWNER(store[which]) != OTHER || store[which] == (to));
#endif
     if
     :: which == RECORD && VERSION(store[RECORD]) != VERSION(to) ->
        if
        :: STATE(store[RECORD]) == COMMITTED ->        /* only a remover ends a committed directory */
           assert(TOKEN(to) == TOKEN(store[RECORD]) && STATE(to) == DISCARDED && ((to) >> 8 & 3) == REMOVER);
           was_removed[TOKEN(store[RECORD])] = 1
        :: else
        fi;
        if
        :: STATE(to) == COMMITTED ->                /* at most once, and never after "not committed" */
           assert(!told_not[TOKEN(to)] && !was_committed[TOKEN(to)]);
           was_committed[TOKEN(to)] = 1
        :: STATE(to) == WRITING && store[RECORD] != 0 && TOKEN(store[RECORD]) != TOKEN(to) ->
           noted(was_taken[TOKEN(store[RECORD])])
        :: else
        fi
     :: else
     fi;
     store[which] = to;
     answer = YES
  :: else -> answer = REFUSED
  fi;
  assert(STATE(store[RECORD]) != COMMITTED                 /* committed: every file is there, the very one of the manifest */
    || (store[DATA0] != 0 && VERSION(store[DATA0]) == VERSION(manifest[2 * TOKEN(store[RECORD])])
        && store[DATA1] != 0 && VERSION(store[DATA1]) == VERSION(manifest[2 * TOKEN(store[RECORD]) + 1])));
  witness(11, store[MARKER] != 0 && STATE(store[RECORD]) == WRITING && TOKEN(store[RECORD]) != store[MARKER])
}

inline fly(which, from, to) {
  flight[lost].name = which;
  flight[lost].condition = from;
  flight[lost].value = to;
  flight[lost].waits = 1;
  lost++
}

/* One request. A request that the client itself sends twice may arrive twice: answered, and again later. */
inline send(which, from, to) {
  if
  :: d_step { carry_out(which, from, to) }
  :: lost < LOSSES -> d_step { fly(which, from, to); silent = 1; answer = SILENCE }
#ifdef DUPLICATES
  :: lost < LOSSES && (to) != 0 ->
     d_step { fly(which, from, (to) + LATE); carry_out(which, from, to) }
#endif
#ifdef TWICE                    /* the client, or what is between, sends a delete again */
  :: lost < LOSSES && (to) == 0 -> d_step { fly(which, from, to); carry_out(which, from, to) }
#endif
  fi
}

#ifdef TIMED
/* A lease has passed since the record last moved. */
inline expire() {
  d_step {
    in_time[0] = 0; in_time[1] = 0; in_time[2] = 0; in_time[3] = 0; in_time[4] = 0; in_time[5] = 0;
    number = 0;
    do
    :: number < SLOTS ->
       if
       :: flight[number].waits && flight[number].value == 0 ->
          flight[number].name = 0; flight[number].condition = 0; flight[number].waits = 0
       :: else
       fi;
       number++
    :: else -> break
    od;
    number = 0
  }
}
#ifdef NO_TIME
#define may_delete  true
#else
#define may_delete  (in_time[_pid] != 0)
#endif
/* May a delete that was sent under this record be under way? A writer that took over from nobody has sent none. */
#ifdef NO_SETTLED
#define settles(record)  true
#else
#define settles(record)  (STATE(record) == WRITING && CHAIN(record) == 0)
#endif
#ifdef READ_ANCHOR
#define read_anchor  in_time[_pid] = 1
#else
#define read_anchor  skip
#endif
#else
#define may_delete  true
#define settles(record)  true
#define read_anchor  skip
#endif

proctype network(byte slot) {
  byte answer;
endless:
  do
  :: d_step { flight[slot].waits ->
       carry_out(flight[slot].name, flight[slot].condition, flight[slot].value);
       witness(9, answer == YES && flight[slot].value != 0 && has_ended[flight[slot].value & 3]);
       flight[slot].name = 0; flight[slot].condition = 0; flight[slot].value = 0; flight[slot].waits = 0;
       answer = 0 }
  od
}

/* Is `there` still the record that this party holds? (Register._is_ours) One that is discarded is its last cleaner's. */
#ifdef NO_CLEANER
#define SAME_CLEANER(there)  true
#else
#define SAME_CLEANER(there)  (STATE(there) != DISCARDED || ((there) >> 8 & 3) == (mine >> 8 & 3))
#endif
#ifdef NO_VERSION
#define OURS(there)  (TOKEN(there) == token && STATE(there) == STATE(mine) && SAME_CLEANER(there))
#else
#define OURS(there)  (TOKEN(there) == token && STATE(there) == STATE(mine) && SAME_CLEANER(there) \
                      && (RENEWALS(there) > RENEWALS(mine) || VERSION(there) == VERSION(version)))
#endif

/* May this party delete an object of that owner? Rule *owner*: only of its own attempt, or of one whose place it took. */
#ifdef NO_OWNER
#define MINE(owner)  true
#else
#ifdef NO_CHAIN
#define MINE(owner)  ((owner) == token)
#else
#define MINE(owner)  ((owner) == token || (CHAIN(mine) & LINK(owner)) != 0)
#endif
#endif

/* Why the record is moved. */
#define TAKING       1
#define RENEWING     2
#define COMMITTING   3
#define WITHDRAWING  4
#define DISCARDING   5
#define CONFIRMING   6
#define FREEING      7

inline delete_listed(which, listed) {
  if
  :: !may_delete -> answer = REFUSED                   /* the next pass renews, and goes on */
  :: may_delete ->
#ifdef NO_CONDITIONAL
     send(which, ANY, 0)
#else
     send(which, listed, 0)
#endif
  fi;
  listed = 0;
  if
  :: answer == SILENCE ->
     if
#if !defined(TIMED) || defined(NO_TOMBSTONE)
     :: true                                           /* the client's own retry says that it is gone */
#endif
#if !defined(NO_TOMBSTONE)
     :: doubtful = 1; listed0 = 0; listed1 = 0; listed2 = 0;
        if
        :: role != WRITER -> goto end
        :: role == WRITER && STATE(mine) == WRITING -> goto give_up
        :: role == WRITER && STATE(mine) != WRITING -> goto not_committed
        fi
#endif
     fi
  :: else
  fi
}

proctype party(byte me; byte role) {
  byte token = me;              /* of the attempt that is acted for */
  short mine;                   /* the record as this party last knew it to be its own */
  short version;                /* that its next move is conditional on */
  short target, seen;
  short listed0, listed1, listed2;
  byte answer, why, tries, claims, sent, number;
  bit silent, alone, withdrawn, took, foreign, doubtful;

  if
  :: role == WRITER -> goto claim
  :: role == SWEEPER -> goto sweep
  :: role == REMOVER -> goto remove
  fi;

/* -- claim: create the record, beside it one listing --------------------------------------------------------- */
claim:
  atomic {
    mine = RECORD_OF(me, WRITING, 0, sent);
    if
    :: true -> number = 0
    :: true -> number = 1; listed0 = store[DATA0]      /* the listing's first page came before */
    fi
  };
  if
  :: number == 1 -> d_step { listed1 = store[DATA1]; listed2 = store[MARKER]; number = 2 }
  :: true
  fi;
  atomic {
    send(RECORD, 0, mine);
    sent++;
    if
    :: answer == YES -> version = mine;
#ifdef TIMED
       in_time[_pid] = 1;
#endif
       goto claimed
    :: else
    fi
  };
  atomic {                                             /* Register.claim: who is in the way? */
    seen = store[RECORD]; listed0 = 0; listed1 = 0; listed2 = 0; number = 0;
    if
    :: seen == 0 -> claims++;
       if
       :: claims < CLAIMS -> goto claim
       :: else -> goto not_committed
       fi
    :: TOKEN(seen) == me && STATE(seen) == WRITING -> mine = seen; version = seen; goto claimed
    :: TOKEN(seen) == me && STATE(seen) != WRITING -> goto not_committed     /* AbandonedError */
    :: TOKEN(seen) != me && STATE(seen) == COMMITTED -> goto not_committed   /* AlreadyCommittedError */
    :: TOKEN(seen) != me && STATE(seen) != COMMITTED ->
       if
       :: goto not_committed                           /* its holder lives: ConflictError */
       :: !settles(seen) -> goto watch
       :: settles(seen) -> mine = RECORD_OF(me, WRITING, 0, sent) | CHAIN(seen) | LINK(TOKEN(seen)); sent++;
          version = seen; target = mine; why = TAKING; tries = 0; goto move
       fi
    fi
  };

watch:                                                 /* one lease: claiming._wait_a_lease */
#ifdef TIMED
  atomic {
    if
    :: store[RECORD] == seen ->
       expire();
       mine = RECORD_OF(me, WRITING, 0, sent) | CHAIN(seen) | LINK(TOKEN(seen)); sent++;
       version = seen; target = mine; why = TAKING; tries = 0; goto move
    :: else -> seen = 0; goto not_committed
    fi
  };
#endif

claimed:
  if
  :: number == 0 -> atomic { listed0 = store[DATA0]; number = 1 }
  :: else
  fi;
  atomic {
    answer = 0; seen = 0;
    if :: number == 1 -> listed1 = store[DATA1]; listed2 = store[MARKER] :: else fi;
    number = 0;
    if
    :: listed0 != 0 || listed1 != 0 || listed2 != 0 || store[INNER] != 0 -> /* ConflictError: take our record away again, nothing else */
       listed0 = 0; listed1 = 0; listed2 = 0;
#ifdef TIMED
       goto free
#else
       send(RECORD, version, 0); goto not_committed
#endif
    :: else
    fi;
  };

/* -- add: create each data object ---------------------------------------------------------------------------- */
add:
  atomic { alone = 1; claims = 0; sent = 0; number = 0; tries = 0; answer = 0; why = 0; seen = 0 };
put:
  atomic {
#ifdef NO_EXCLUSIVE
    send(number, ANY, OBJECT(me, tries));
#else
    send(number, 0, OBJECT(me, tries));
#endif
    noted(has_put[me]);
    tries++;
    if
    :: answer == YES -> seen = OBJECT(me, tries - 1); goto created
    :: answer == SILENCE ->
       if
       :: tries < PUTS -> goto put                     /* the client's own retry */
       :: goto give_up
       fi
    :: answer == REFUSED
    fi
  };
  atomic {                                             /* somebody's object is in our place: whose? */
    seen = store[number];
    if
    :: seen == 0 -> if :: tries < PUTS -> goto put :: else -> goto give_up fi
    :: seen != 0 && OWNER(seen) == me -> goto created  /* the answer to our own retry */
    :: seen != 0 && OWNER(seen) != me && MINE(OWNER(seen))                   /* of a late writer */
    :: seen != 0 && OWNER(seen) != me && !MINE(OWNER(seen)) -> goto give_up  /* ConflictError */
    fi
  };
#ifndef NO_CONFIRM
  atomic {
    if
    :: store[RECORD] != 0 && OURS(store[RECORD]) -> read_anchor
    :: else -> goto not_committed                      /* AbandonedError */
    fi
  };
#endif
  atomic {
    if
    :: !may_delete -> goto give_up                     /* the code renews first; here it is somebody's whose lease runs out */
    :: may_delete
    fi;
#ifdef NO_CONDITIONAL
    send(number, ANY, 0);
#else
    send(number, seen, 0);
#endif
    if
    :: answer == SILENCE -> doubtful = 1; goto give_up
    :: answer != SILENCE && tries < PUTS -> goto put
    :: else -> goto give_up
    fi
  };
created:
  atomic {
    manifest[2 * me + number] = seen; seen = 0; tries = 0;
    if
    :: number == 0 -> number = 1;
#ifdef RENEW
       if
       :: target = RECORD_OF(me, WRITING, RENEWALS(mine) + 1, 0) | CHAIN(mine); why = RENEWING; goto move
       :: true
       fi;
#endif
       goto put
    :: else -> number = 0
    fi;
#ifndef PROGRESS
    if
    :: true
    :: goto give_up                                    /* the user's block raises */
    fi
#endif
  };

/* -- finalize ------------------------------------------------------------------------------------------------ */
  atomic { target = RECORD_OF(me, COMMITTED, RENEWALS(mine), WRITER) | CHAIN(mine); why = COMMITTING; tries = 0; goto move };

told_committed:
  atomic {
    noted(told_yes[me]);
    assert(was_committed[me] && (was_removed[me] || (STATE(store[RECORD]) == COMMITTED && TOKEN(store[RECORD]) == me)));
    witness(1, took);
    witness(3, silent && why == COMMITTING);
    witness(6, was_removed[1] && me == 2);
    witness(13, CHAIN(mine) == (LINK(1) | LINK(2)) && me == 3);
    assert(store[INNER] != COMMITTED || was_removed[me])    /* both want one name: one of the two at most commits */
  };
  atomic {                                             /* the marker follows */
    send(MARKER, 0, me);
    if :: answer == REFUSED :: else -> goto end fi
  };
  atomic {                                             /* an earlier attempt's is exchanged; any other stays */
    seen = store[MARKER];
    if
#ifdef TIMED
    :: seen != 0 && seen != me && MINE(OWNER(seen)) && may_delete -> send(MARKER, ANY, 0)
#else
    :: seen != 0 && seen != me && MINE(OWNER(seen)) -> send(MARKER, seen, 0)
#endif
    :: else -> goto end
    fi
  };
  atomic { send(MARKER, 0, me); goto end };

/* -- give up: discard, clear, free, and only then say so ------------------------------------------------------ */
give_up:
  atomic {
    number = 0; seen = 0; tries = 0;
    target = RECORD_OF(token, DISCARDED, RENEWALS(mine), WRITER) | CHAIN(mine); why = DISCARDING; goto move
  };

not_committed:
  atomic {
    assert(!(STATE(store[RECORD]) == COMMITTED && TOKEN(store[RECORD]) == me));
    told_not[me] = 1;
    witness(2, was_taken[me] && has_put[me]);
    witness(4, withdrawn);
    witness(14, alone && store[INNER] == COMMITTED);
    witness(12, was_committed[me])
  };
  goto end;

unknown:
  atomic {
    assert(silent);
    witness(5, 1)
  };
  goto end;

/* -- sweep and remove ------------------------------------------------------------------------------------------ */
sweep:
endsweep:
  atomic {
    if
    :: STATE(store[RECORD]) == WRITING || STATE(store[RECORD]) == DISCARDED -> seen = store[RECORD];
#ifdef TIMED
       if                                              /* its age, by the store's clock */
       :: !settles(seen) -> expire()
       :: settles(seen)
       fi;
#endif
       goto discard_it
    :: STATE(store[RECORD]) == COMMITTED -> seen = store[RECORD]
    fi
  };
  if                                                   /* committed; a marker that is missing is added */
  :: atomic { store[MARKER] == 0 -> number = TOKEN(seen); witness(10, has_ended[number]); seen = 0 }
  :: atomic { store[MARKER] != 0 -> goto end }
  fi;
  atomic { send(MARKER, 0, number); goto end };
remove:
endremove:
  atomic { STATE(store[RECORD]) == COMMITTED -> seen = store[RECORD] };
discard_it:
  atomic {
    token = TOKEN(seen); mine = seen; version = seen; seen = 0;
    target = RECORD_OF(token, DISCARDED, RENEWALS(mine) + 1, role) | CHAIN(mine); why = DISCARDING; tries = 0;
#ifdef NO_REGISTER
    mine = version; goto clear
#else
    goto move
#endif
  };

/* -- move the record from `version` to `target`, and settle every answer that is not a plain yes (Register._move) */
move:
  atomic {
#ifdef NO_SWAP
    if
    :: why == COMMITTING -> send(RECORD, ANY, target)
    :: else -> send(RECORD, version, target)
    fi;
#else
#ifdef NO_REGISTER
    if
    :: why == TAKING -> send(RECORD, ANY, target)
    :: else -> send(RECORD, version, target)
    fi;
#else
    send(RECORD, version, target);
#endif
#endif
    tries++;
    if
    :: answer == YES ->
#ifdef TIMED
       in_time[_pid] = 1;
#endif
       goto moved
    :: else
    fi
  };
  atomic {
    if
    :: seen = store[RECORD];
       if
       :: CONTENT(seen) == CONTENT(target) -> read_anchor; goto moved
       :: CONTENT(seen) != CONTENT(target) && (seen == 0 || !OURS(seen) || (role != WRITER && why == DISCARDING && seen != version)) ->
          goto moved_away
       :: else -> version = seen; seen = 0
       fi
    :: lost < LOSSES -> lost++; silent = 1
    fi;
    if
    :: tries < TRIES -> goto move
    :: else -> goto not_settled
    fi
  };

moved:
  atomic {
    if :: answer == YES -> version = target :: else -> version = seen fi;
    seen = 0; mine = target; target = 0; tries = 0; answer = 0;
    if
    :: why == TAKING -> took = 1; goto clear
    :: why == RENEWING -> goto put
    :: why == COMMITTING -> goto told_committed
    :: why == WITHDRAWING -> withdrawn = 1; goto give_up
    :: why == DISCARDING && doubtful -> goto not_committed            /* the record stays: a tombstone */
    :: why == DISCARDING && !doubtful -> if :: role == REMOVER -> goto unmark :: else -> goto clear fi
    :: why == FREEING -> goto free
    :: why == CONFIRMING -> goto delete
    fi
  };
moved_away:
  atomic {
    if
    :: role != WRITER -> goto end
    :: why == TAKING -> seen = 0; target = 0; tries = 0; claims++;
       if :: claims < CLAIMS -> goto claim :: else -> goto not_committed fi
    :: why == RENEWING -> seen = 0; target = 0; tries = 0; goto put    /* the writer learns it from its own next move */
    :: why == WITHDRAWING
    :: role == WRITER && why != TAKING && why != RENEWING && why != WITHDRAWING -> goto not_committed
    fi
  };
  atomic {                                             /* Register._look_again */
    seen = store[RECORD];
    if
    :: STATE(seen) == COMMITTED && TOKEN(seen) == me -> why = COMMITTING; goto told_committed
    :: else -> goto not_committed
    fi
  };
not_settled:
  atomic {
    seen = 0; target = 0; tries = 0;
    if
    :: role != WRITER -> goto end
    :: why == RENEWING -> goto put
    :: why == COMMITTING -> target = RECORD_OF(me, DISCARDED, RENEWALS(mine), WRITER) | CHAIN(mine); why = WITHDRAWING; goto move
    :: why == TAKING || why == WITHDRAWING -> goto unknown
    :: why == CONFIRMING && STATE(mine) == WRITING -> goto give_up
    :: why == DISCARDING || why == FREEING || (why == CONFIRMING && STATE(mine) != WRITING) ->
       goto not_committed                              /* cleared no further */
    fi
  };

/* -- a removal deletes the marker before all else: scripts see nothing but it ----------------------------------- */
unmark:
  atomic { listed2 = store[MARKER]; answer = 0; why = 0 };
  if
  :: listed2 != 0 && MINE(OWNER(listed2)) ->
#ifndef NO_CONFIRM
     atomic {
       if
       :: store[RECORD] != 0 && OURS(store[RECORD])
       :: else -> goto end
       fi
     };
#endif
     atomic { delete_listed(MARKER, listed2) }
  :: else
  fi;
  goto clear;

/* -- clear: list, confirm, delete the versions listed, until nothing is listed ---------------------------------- */
clear:
  atomic { number = 0; why = 0; answer = 0 };
list:
  atomic { listed0 = store[DATA0] };
  atomic {
    listed1 = store[DATA1]; listed2 = store[MARKER];
    witness(7, listed0 != 0 && listed1 != 0 && OWNER(listed0) != OWNER(listed1));
    if                                                 /* what is another's, or below its border, is left alone */
    :: listed0 != 0 && !MINE(OWNER(listed0)) -> listed0 = 0; foreign = 1
    :: else
    fi;
    if
    :: listed1 != 0 && (!MINE(OWNER(listed1)) || store[INNER] != 0) -> listed1 = 0; foreign = 1
    :: else
    fi;
    if
    :: listed2 != 0 && !MINE(OWNER(listed2)) -> listed2 = 0; foreign = 1
    :: else
    fi;
    if
    :: listed0 == 0 && listed1 == 0 && listed2 == 0 && !foreign && store[INNER] == 0 -> goto cleared
    :: listed0 == 0 && listed1 == 0 && listed2 == 0 && (foreign || store[INNER] != 0) ->
       foreign = 0; number = 0; answer = 0; goto left_alone
    :: else -> foreign = 0
    fi;
    if
    :: number >= TRIES -> listed0 = 0; listed1 = 0; listed2 = 0; goto not_cleared
    :: else -> number++
    fi;
#ifdef NO_CONFIRM
    goto delete
#else
#ifdef NO_REGISTER
    if
    :: store[RECORD] == version -> goto delete
    :: else -> goto end
    fi
#else
    target = RECORD_OF(token, STATE(mine), RENEWALS(mine) + 1, (mine >> 8 & 3)) | CHAIN(mine);
    why = CONFIRMING; tries = 0; goto move
#endif
#endif
  };
delete:
  if
  :: listed0 != 0 -> atomic { delete_listed(DATA0, listed0) }
  :: else
  fi;
  if
  :: listed1 != 0 -> atomic { delete_listed(DATA1, listed1) }
  :: else
  fi;
  if
  :: listed2 != 0 -> atomic { delete_listed(MARKER, listed2) }
  :: else
  fi;
  atomic { answer = 0; goto list };
not_cleared:
  atomic {
    if
    :: role != WRITER -> goto end                      /* the record stays: the next sweep goes on */
    :: role == WRITER && STATE(mine) == WRITING -> goto free
    :: role == WRITER && STATE(mine) != WRITING -> if :: alone -> goto free :: else -> goto not_committed fi
    fi
  };
left_alone:                                            /* ConflictError, but all that is ours is deleted */
  atomic {
    witness(15, role == WRITER && STATE(mine) != WRITING && alone);
    if
    :: role == WRITER && STATE(mine) != WRITING && !alone -> goto not_committed   /* the record stays, discarded */
    :: else -> goto free
    fi
  };
cleared:
  atomic {
    number = 0; answer = 0;
    if
    :: role == WRITER && STATE(mine) == WRITING -> goto add
    :: else
    fi
  };
free:
#ifdef TIMED
  atomic {
    number = 0; seen = 0; tries = 0; answer = 0;
    if
    :: STATE(mine) == WRITING ->                       /* a tombstone, while the delete is under way */
       target = RECORD_OF(token, DISCARDED, RENEWALS(mine), WRITER) | CHAIN(mine); why = FREEING; goto move
    :: else
    fi
  };
#endif
  atomic {
    if
#if defined(NO_CONDITIONAL) && !defined(RECORD_CONDITIONAL)
    :: may_delete -> send(RECORD, ANY, 0)
    :: !may_delete                                     /* the code renews first; here it is left to the next sweep */
#else
    :: true -> send(RECORD, version, 0)
#endif
    fi;
    if :: role == WRITER -> goto not_committed :: else -> goto end fi
  };

end:
  skip;
  d_step {
    if
    :: role == WRITER ->
       noted(has_ended[me]);
#if defined(WITNESS) || defined(PROGRESS)
       over++;
       witness(8, over == WRITERS && silent && store[RECORD] == 0 && (store[DATA0] != 0 || store[DATA1] != 0));
#endif
#ifdef PROGRESS
       assert(over < WRITERS || told_yes[1] || told_yes[2] || told_yes[3]);
#endif
       if
       :: told_not[me] -> manifest[2 * me] = 0; manifest[2 * me + 1] = 0
       :: else
       fi
    :: else
    fi;                                                /* what a process that has ended remembers tells no states apart */
    token = 0; mine = 0; version = 0; target = 0; seen = 0; listed0 = 0; listed1 = 0; listed2 = 0;
    answer = 0; why = 0; tries = 0; claims = 0; sent = 0; number = 0;
    silent = 0; alone = 0; withdrawn = 0; took = 0; foreign = 0; doubtful = 0;
#ifdef TIMED
    in_time[_pid] = 0
#endif
  }
}

/* -- whoever copies an object of another place here, where nothing is: the copy keeps its owner ------------------ */
proctype copier() {
  if
  :: d_step { store[DATA1] == 0 -> store[DATA1] = OBJECT(OTHER, 1) }
  :: d_step { store[MARKER] == 0 -> store[MARKER] = OTHER }
  :: true
  fi
}

/* -- another place in this one: claims its record, creates one object, commits or gives up ----------------------- */
proctype inner() {
  if
  :: true                                              /* it looked at what is above before our record was there */
  :: d_step { store[RECORD] == 0 -> skip }
  :: d_step { store[RECORD] != 0 -> skip }; goto end_inner    /* ConflictError */
  fi;
  d_step { store[INNER] = WRITING };
  if
  :: d_step { store[DATA1] != 0 -> store[INNER] = 0 }; goto end_inner         /* foreign to it: it withdraws */
  :: d_step { store[DATA1] == 0 -> skip }
  fi;
  if
  :: d_step { store[DATA1] == 0 -> store[DATA1] = OBJECT(OTHER, 2) }
  :: d_step { store[DATA1] != 0 -> store[INNER] = 0 }; goto end_inner         /* ConflictError; it has nothing else */
  fi;
  if
  :: d_step { store[INNER] = COMMITTED; assert(OWNER(store[DATA1]) == OTHER) }
  :: d_step { assert(OWNER(store[DATA1]) == OTHER); store[DATA1] = 0 }; d_step { store[INNER] = 0 }
  fi;
end_inner:
  skip
}

init {
  byte next;
  atomic {
    next = 1;
    do
    :: next <= WRITERS -> run party(next, WRITER); next++
    :: else -> break
    od;
    next = 0;
    do
    :: next < SWEEPERS -> run party(0, SWEEPER); next++
    :: else -> break
    od;
    next = 0;
    do
    :: next < REMOVERS -> run party(0, REMOVER); next++
    :: else -> break
    od;
    next = 0;
    do
    :: next < COPIES -> run copier(); next++
    :: else -> break
    od;
#ifdef NESTED
    run inner();
#endif
    next = 0;
    do
    :: next < LOSSES -> run network(next); next++
    :: else -> break
    od;
    next = 0
  }
}
