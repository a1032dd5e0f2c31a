-------------------------------- MODULE Emit --------------------------------
(* What leaves a shard: LOG L14.                                             *)
(*                                                                           *)
(* Owners follow each other. Each decides ahead of the journal, emits what   *)
(* is acknowledged, in order, and journals how far it is, per topic. One     *)
(* that was replaced goes on with what it knows to be accepted. Some topics  *)
(* refuse for good. That all agree on what is accepted is Append.tla's;      *)
(* that rows survive a trim is Compact.tla's.                                *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  Topics,
  MayRefuse,           \* of them, those that may refuse for good
  MaxOwners,
  MaxDecisions,
  MaxLog,
  MaxFlight,           \* records of an owner that are not in the journal yet
  Trims,
  \* The rules.
  EmitAfterAck,        \* nothing leaves before its decision is acknowledged
  TailFirst,           \* a new owner emits what may not have left, before anything new
  ProgressAfterAnswer, \* progress passes what Kafka has acknowledged, not what was sent
  RefusalIsInput,      \* a permanent refusal is decided, and progress passes it
  TrimBelowEmitted,    \* what is not emitted stays readable
  TrimBehindRefusals   \* and what was refused, until that is journaled

VARIABLES
  log,     \* accepted records
  start,   \* the first that can still be read
  owner,   \* each owner: what it has under way and knows
  now,     \* the owner whose claim is the last
  end,     \* of each owner that was replaced: where the journal was when it was
  topic,   \* what stands in each topic
  gone,    \* topics that refuse
  decided

vars == <<log, start, owner, now, end, topic, gone, decided>>

Owners == 1..MaxOwners
Higher(x, y) == IF x > y THEN x ELSE y
Min(S) == CHOOSE x \in S : \A y \in S : x <= y

\* A decision emits one command. Its seq, by one owner, is its name.
Decision(o, t, seq) == [k |-> "decision", by |-> o, t |-> t, seq |-> seq, p |-> <<>>]
Refusal(o, of)      == [k |-> "refusal", by |-> o, t |-> of.t, seq |-> of.seq, p |-> <<>>]
Progress(o, p)      == [k |-> "progress", by |-> o, t |-> "", seq |-> 0, p |-> p]

Idle == [known |-> 0, flight |-> <<>>, out |-> <<>>, refusal |-> 0]

\* How far each topic is, by the records up to one.
RECURSIVE Journaled(_, _)
Journaled(n, t) ==
  IF n = 0 THEN 0
  ELSE Higher(Journaled(n - 1, t), IF log[n].k = "progress" THEN log[n].p[t] ELSE 0)

RECURSIVE ToldAhead(_, _, _)
ToldAhead(flight, n, t) == \* by the records under way as well
  IF n = 0 THEN Journaled(Len(log), t)
  ELSE Higher(ToldAhead(flight, n - 1, t), IF flight[n].k = "progress" THEN flight[n].p[t] ELSE 0)

\* The last sequence that the owner has given out.
Seq0(o) == Len(log) + Len(owner[o].flight)

Sent(w, t) == {w.out[i].seq : i \in {j \in 1..Len(w.out) : w.out[j].t = t}}

\* Everything on the topic up to this record is done.
Emitted(w, t) ==
  IF ProgressAfterAnswer /\ Sent(w, t) # {} THEN Min(Sent(w, t)) - 1 ELSE w.known
EmittedOnAll(w) == Min({Emitted(w, t) : t \in Topics})

Become(o, w) == owner' = [owner EXCEPT ![o] = w]

-----------------------------------------------------------------------------
(* Owners. One that was replaced need not know it: its acknowledgements and  *)
(* its messages are still under way. What it decides, trims or reports then  *)
(* is as if it had done so before, and not modelled twice.                   *)

Decide(o) ==
  /\ o = now
  /\ decided < MaxDecisions
  /\ Len(owner[o].flight) < MaxFlight
  /\ \E t \in Topics :
       LET d == Decision(o, t, Seq0(o) + 1) IN
       Become(o, [owner[o] EXCEPT !.flight = Append(@, d), !.out = IF EmitAfterAck THEN @ ELSE Append(@, d)])
  /\ decided' = decided + 1
  /\ UNCHANGED <<log, start, now, end, topic, gone>>

\* The next record is acknowledged: now, and only now, its command leaves.
Acknowledge(o) ==
  LET w == owner[o]
      n == w.known + 1
      r == log[n]
  IN /\ o <= now
     /\ n <= (IF o = now THEN Len(log) ELSE end[o])
     /\ Become(o, [w EXCEPT !.known = n, !.out = IF r.k = "decision" /\ EmitAfterAck THEN Append(@, r) ELSE @])
     /\ UNCHANGED <<log, start, now, end, topic, gone, decided>>

\* Progress is journaled also when nothing is decided.
Report(o) ==
  LET w == owner[o]
      p == [t \in Topics |-> Emitted(w, t)]
  IN /\ o = now
     /\ Len(log) + Len(w.flight) < MaxLog
     /\ Len(w.flight) < MaxFlight
     /\ \E t \in Topics, i \in 1..w.known :
          log[i].k = "decision" /\ log[i].t = t /\ ToldAhead(w.flight, Len(w.flight), t) < i /\ i <= p[t]
     /\ Become(o, [w EXCEPT !.flight = Append(@, Progress(o, p))])
     /\ UNCHANGED <<log, start, now, end, topic, gone, decided>>

\* Kafka refuses a message for good. That it does is decided, and it is done with.
Refuse(o) ==
  LET w == owner[o] IN
  /\ o = now
  /\ RefusalIsInput
  /\ \E i \in 1..Len(w.out) :
       /\ w.out[i].t \in gone
       /\ ~ \E j \in 1..(i - 1) : w.out[j].t = w.out[i].t
       /\ Become(o, [w EXCEPT !.out = SubSeq(@, 1, i - 1) \o SubSeq(@, i + 1, Len(@)),
                              !.flight = Append(@, Refusal(o, w.out[i])),
                              !.refusal = Seq0(o) + 1])
  /\ UNCHANGED <<log, start, now, end, topic, gone, decided>>

Trim(o) ==
  LET w == owner[o]
      t == (IF TrimBelowEmitted THEN EmittedOnAll(w) ELSE w.known) + 1
  IN /\ Trims
     /\ o = now
     /\ t > start
     /\ TrimBehindRefusals => w.known >= w.refusal
     /\ start' = t
     /\ UNCHANGED <<log, owner, now, end, topic, gone, decided>>

\* A new owner has read up to its claim. What the last one may not have emitted
\* goes out first, under the same ids.
Open(o) ==
  LET tail == SelectSeq(SubSeq(log, start, Len(log)), LAMBDA r : r.k = "decision" /\ r.seq > Journaled(Len(log), r.t)) IN
  /\ o = now + 1
  /\ now' = o
  /\ end' = [end EXCEPT ![now] = Len(log)]
  /\ owner' = [owner EXCEPT ![now].flight = <<>>, ![now].refusal = 0,
                            ![o] = [Idle EXCEPT !.known = Len(log), !.out = IF TailFirst THEN tail ELSE <<>>]]
  /\ UNCHANGED <<log, start, topic, gone, decided>>

-----------------------------------------------------------------------------
(* The brokers.                                                              *)

Land ==
  LET w == owner[now] IN
  /\ w.flight # <<>>
  /\ log' = Append(log, Head(w.flight))
  /\ Become(now, [w EXCEPT !.flight = Tail(@)])
  /\ UNCHANGED <<start, now, end, topic, gone, decided>>

\* A message arrives and is answered: per topic in the order in which it was sent,
\* and also when its sender has been replaced.
Arrive(o) ==
  LET w == owner[o] IN
  /\ \E i \in 1..Len(w.out) :
       /\ w.out[i].t \notin gone
       /\ ~ \E j \in 1..(i - 1) : w.out[j].t = w.out[i].t
       /\ topic' = [topic EXCEPT ![w.out[i].t] = Append(@, w.out[i])]
       /\ Become(o, [w EXCEPT !.out = SubSeq(@, 1, i - 1) \o SubSeq(@, i + 1, Len(@))])
  /\ UNCHANGED <<log, start, now, end, gone, decided>>

-----------------------------------------------------------------------------
Init ==
  /\ log = <<>> /\ start = 1 /\ now = 1 /\ decided = 0
  /\ owner = [o \in Owners |-> Idle]
  /\ end = [o \in Owners |-> 0]
  /\ topic = [t \in Topics |-> <<>>]
  /\ gone \in SUBSET MayRefuse

Next ==
  \/ \E o \in Owners : Decide(o) \/ Acknowledge(o) \/ Report(o) \/ Refuse(o) \/ Trim(o) \/ Open(o) \/ Arrive(o)
  \/ Land

Spec == Init /\ [][Next]_vars

\* The last owner goes on, and Kafka answers it. Nobody has to decide, to trim or to
\* claim, and of those that were replaced nothing is expected.
FairSpec ==
  /\ Spec
  /\ WF_vars(Land)
  /\ WF_vars(Acknowledge(now)) /\ WF_vars(Report(now)) /\ WF_vars(Refuse(now)) /\ WF_vars(Arrive(now))

-----------------------------------------------------------------------------
(* What must hold.                                                           *)

Commands == {i \in 1..Len(log) : log[i].k = "decision"}
In(t, r) == \E i \in 1..Len(topic[t]) : topic[t][i] = r
Refused(r) == \E i \in 1..Len(log) : log[i].k = "refusal" /\ log[i].t = r.t /\ log[i].seq = r.seq
Settled(r) == In(r.t, r) \/ Refused(r)

\* A command is emitted only for an accepted decision.
OnlyAccepted ==
  \A t \in Topics : \A i \in 1..Len(topic[t]) : \E j \in Commands : log[j] = topic[t][i]

\* Its repetitions aside, a topic is in the order of the journal, without a gap.
First(t, i) == ~ \E j \in 1..(i - 1) : topic[t][j] = topic[t][i]
InOrder ==
  \A t \in Topics : \A i \in 1..Len(topic[t]) :
    First(t, i) => \A c \in Commands : log[c].t = t /\ c < topic[t][i].seq => \E j \in 1..i : topic[t][j] = log[c]

\* What progress or a trim has passed was emitted, or its refusal is decided.
ProgressIsTrue == \A c \in Commands : Journaled(Len(log), log[c].t) >= c => Settled(log[c])
TrimmedIsSettled == \A c \in Commands : c < start => Settled(log[c])

\* With fairness: every accepted command is emitted, or its refusal decided. What was
\* accepted and has left remains so, and decisions are finite here.
EveryCommandLeaves == <>[](\A c \in Commands : Settled(log[c]))

\* With fairness: progress passes everything in the end.
ProgressPasses == <>[](\A c \in Commands : Journaled(Len(log), log[c].t) >= c)

-----------------------------------------------------------------------------
(* What must be reachable, or the above says little.                         *)

NeverEmittedTwice == \A t \in Topics : \A i \in 1..Len(topic[t]) : First(t, i)
NeverThreeOwners == Cardinality({topic[t][i].by : <<t, i>> \in {<<u, j>> \in Topics \X (1..MaxLog) : j <= Len(topic[u])}}) < 3
NeverRefusedTwice == ~ \E i, j \in 1..Len(log) : i < j /\ log[i].k = "refusal" /\ log[j].k = "refusal" /\ log[i].seq = log[j].seq
NeverTrimmed == start = 1
NeverDecisionLost == decided = Cardinality(Commands) + Cardinality({i \in 1..Len(owner[now].flight) : owner[now].flight[i].k = "decision"})
=============================================================================
