------------------------------ MODULE Forward ------------------------------
(* What one shard reads and another has to decide: LOG L6 and L7.            *)
(*                                                                           *)
(* A sender looks at the inputs of one partition, in order. Each concerns    *)
(* itself, the receiver, or both. What concerns the receiver goes to its     *)
(* inbox, where it may arrive late, out of order and twice, also from a      *)
(* sender that was replaced. A message of a decision is such a forward too:  *)
(* its input is the sender's journal. README.md says what this abstracts     *)
(* from.                                                                     *)
EXTENDS Naturals, Sequences, FiniteSets

CONSTANTS
  N,               \* inputs: the offsets 1..N of one partition
  Kinds,           \* of inputs: "here", "there" or "both"
  MaxFlight,       \* records of the sender that are not acknowledged
  MaxSenders,      \* owners of the sending shard, one after the other
  MaxReceivers,    \* and of the receiving one
  MaxAgain,        \* forwards that land once more
  Asides,          \* forwards that the receiver puts aside, into the quarantine topic
  \* The rules.
  PositionWaits,   \* L6: a position does not pass an input with an open forward
  LastPartEnds,    \* L6: of several records that answer an input, only the last finishes it
  OriginsKnown,    \* L7: what was taken from an origin is not taken again
  OriginsExact,    \* L7: they are remembered one by one, not as the highest
  LowMarkForgets,  \* L7: they are forgotten below the sender's low mark, not by count
  LowMarkHonest,   \* L7: below the low mark everything is acknowledged
  LowMarkCapped    \* L7: it does not pass what the receiver is putting aside

VARIABLES
  kind,     \* of each input
  next,     \* sender, in memory: everything below was looked at
  open,     \* and of that, what waits for the inbox
  flight,   \* its records under way to the journal
  mark,     \* sender, in its journal: [low, ahead], what is finished
  had,      \* inputs that its own entities have had
  senders,
  sent,     \* every forward that was ever sent, and may land
  inbox,    \* the receiver's inbox
  looked,   \* receiver, in memory: everything up to here was looked at
  aside,    \* places of the inbox that are on their way to quarantine
  done,     \* receiver, in its journal: places of the inbox that are answered
  origins,  \* [low, ahead]: what was taken from the sender's partition
  taken,    \* how often each input was taken
  receivers

sender   == <<next, open, flight, mark, had, senders>>
receiver == <<looked, aside, done, origins, taken, receivers>>
vars     == <<kind, sender, sent, inbox, receiver>>

Inputs == 1..N
Min(S) == CHOOSE x \in S : \A y \in S : x <= y
Max(S) == CHOOSE x \in S : \A y \in S : x >= y
Higher(x, y) == IF x > y THEN x ELSE y
Lower(x, y) == IF x < y THEN x ELSE y

\* journal.Mark
Has(m, o) == o < m.low \/ o \in m.ahead
Raise(m, low) == [low |-> Higher(m.low, low), ahead |-> {o \in m.ahead : o >= low}]
Add(m, o) == IF Has(m, o) THEN m ELSE [m EXCEPT !.ahead = @ \cup {o}]

-----------------------------------------------------------------------------
(* The sender.                                                               *)

Low(n, out) == IF out # {} /\ PositionWaits THEN Min(out) ELSE n

Forwarded(o, out) == [o |-> o, low |-> IF LowMarkHonest THEN Low(o + 1, out) ELSE o + 1]

\* Look at the next input: decide it here, forward it, or both.
TakeInput ==
  LET o    == next
      out  == open \cup {o}
      both == [o |-> o, low |-> IF LastPartEnds THEN Lower(Low(o + 1, open), o) ELSE Low(o + 1, open), more |-> LastPartEnds]
      here == [o |-> o, low |-> Low(o + 1, open), more |-> FALSE]
  IN /\ o <= N
     /\ Len(flight) < MaxFlight
     /\ next' = o + 1
     /\ IF Has(mark, o) THEN UNCHANGED <<open, flight, sent>>
        ELSE CASE kind[o] = "here"  -> flight' = Append(flight, here) /\ UNCHANGED <<open, sent>>
               [] kind[o] = "there" -> open' = out /\ sent' = sent \cup {Forwarded(o, out)} /\ UNCHANGED flight
               [] kind[o] = "both"  -> open' = out /\ sent' = sent \cup {Forwarded(o, out)} /\ flight' = Append(flight, both)
     /\ UNCHANGED <<kind, mark, had, senders, inbox, receiver>>

\* The first record under way is acknowledged.
Journal ==
  /\ flight # <<>>
  /\ LET r == Head(flight)
         m == Raise(mark, r.low)
     IN /\ mark' = IF r.o = 0 \/ r.more THEN m ELSE Add(m, r.o)
        /\ had' = IF r.o = 0 THEN had ELSE had \cup {r.o}
  /\ flight' = Tail(flight)
  /\ UNCHANGED <<kind, next, open, senders, sent, inbox, receiver>>

\* The inbox has a forward.
ForwardAcked ==
  /\ \E o \in open : (\E i \in 1..Len(inbox) : inbox[i].o = o) /\ open' = open \ {o}
  /\ UNCHANGED <<kind, next, flight, mark, had, senders, sent, inbox, receiver>>

\* Positions are journaled also when nothing is decided.
Report ==
  LET told == {flight[i].low : i \in 1..Len(flight)} \cup {mark.low} IN
  /\ Low(next, open) > Max(told)
  /\ Len(flight) < MaxFlight
  /\ flight' = Append(flight, [o |-> 0, low |-> Low(next, open), more |-> FALSE])
  /\ UNCHANGED <<kind, next, open, mark, had, senders, sent, inbox, receiver>>

\* Another owner begins where the journal says. What is under way may still land.
SenderReplaced ==
  /\ senders < MaxSenders
  /\ senders' = senders + 1
  /\ next' = mark.low
  /\ open' = {}
  /\ flight' = <<>>
  /\ UNCHANGED <<kind, mark, had, sent, inbox, receiver>>

-----------------------------------------------------------------------------
(* The brokers.                                                              *)

Landed(f) == \E i \in 1..Len(inbox) : inbox[i] = f
Again == Len(inbox) - Cardinality({inbox[i] : i \in 1..Len(inbox)})

Arrive ==
  /\ \E f \in sent : ~Landed(f) /\ inbox' = Append(inbox, f)
  /\ UNCHANGED <<kind, sender, sent, receiver>>

ArriveAgain ==
  /\ Again < MaxAgain
  /\ \E f \in sent : Landed(f) /\ inbox' = Append(inbox, f)
  /\ UNCHANGED <<kind, sender, sent, receiver>>

-----------------------------------------------------------------------------
(* The receiver. Its records are acknowledged at once: nothing leaves it     *)
(* before, so losing some is the same as not having decided them.            *)

AsideOrigins(places) == {inbox[i].o : i \in places}

Known(o) ==
  /\ OriginsKnown
  /\ IF OriginsExact THEN Has(origins, o)
     ELSE o < origins.low \/ \E p \in origins.ahead : o <= p

\* The mark after a record that takes f while others are on their way aside.
Took(f, others) ==
  LET capped == IF LowMarkCapped /\ others # {} THEN Lower(f.low, Min(others)) ELSE f.low IN
  IF LowMarkForgets THEN Add(Raise(origins, capped), f.o)
  ELSE [low |-> 1, ahead |-> {f.o}]

\* Look at the next record of the inbox and drop what is known already.
DropKnown ==
  LET i == looked + 1 IN
  /\ i <= Len(inbox)
  /\ i \in done \/ Known(inbox[i].o) \/ (inbox[i].o \in AsideOrigins(aside) /\ OriginsKnown)
  /\ looked' = i
  /\ UNCHANGED <<kind, sender, sent, inbox, aside, done, origins, taken, receivers>>

Fresh(i) ==
  /\ i <= Len(inbox)
  /\ i \notin done
  /\ ~Known(inbox[i].o)
  /\ ~(inbox[i].o \in AsideOrigins(aside) /\ OriginsKnown)

Answer(i, others) ==
  /\ done' = done \cup {i}
  /\ origins' = Took(inbox[i], AsideOrigins(others))
  /\ taken' = [taken EXCEPT ![inbox[i].o] = @ + 1]

TakeForward ==
  /\ Fresh(looked + 1)
  /\ looked' = looked + 1
  /\ Answer(looked + 1, aside)
  /\ UNCHANGED <<kind, sender, sent, inbox, aside, receivers>>

\* Nobody here can take it: it goes to the quarantine topic.
PutAside ==
  /\ Asides
  /\ Fresh(looked + 1)
  /\ looked' = looked + 1
  /\ aside' = aside \cup {looked + 1}
  /\ UNCHANGED <<kind, sender, sent, inbox, done, origins, taken, receivers>>

\* The quarantine topic has it; the record says so.
IsAside ==
  /\ \E i \in aside : aside' = aside \ {i} /\ Answer(i, aside \ {i})
  /\ UNCHANGED <<kind, sender, sent, inbox, looked, receivers>>

ReceiverReplaced ==
  /\ receivers < MaxReceivers
  /\ receivers' = receivers + 1
  /\ looked' = 0
  /\ aside' = {}
  /\ UNCHANGED <<kind, sender, sent, inbox, done, origins, taken>>

-----------------------------------------------------------------------------
Nothing == [low |-> 1, ahead |-> {}]

Init ==
  /\ kind \in [Inputs -> Kinds]
  /\ next = 1 /\ open = {} /\ flight = <<>> /\ mark = Nothing /\ had = {} /\ senders = 1
  /\ sent = {} /\ inbox = <<>>
  /\ looked = 0 /\ aside = {} /\ done = {} /\ origins = Nothing /\ receivers = 1
  /\ taken = [o \in Inputs |-> 0]

Next ==
  \/ TakeInput \/ Journal \/ ForwardAcked \/ Report \/ SenderReplaced
  \/ Arrive \/ ArriveAgain
  \/ DropKnown \/ TakeForward \/ PutAside \/ IsAside \/ ReceiverReplaced

Spec == Init /\ [][Next]_vars

\* What a sender that lives is waiting for arrives. Of those that were replaced nothing
\* is expected.
ArriveAwaited ==
  /\ \E f \in sent : f.o \in open /\ ~Landed(f) /\ inbox' = Append(inbox, f)
  /\ UNCHANGED <<kind, sender, sent, receiver>>

FairSpec ==
  Spec /\ WF_vars(TakeInput) /\ WF_vars(Journal) /\ WF_vars(ForwardAcked) /\ WF_vars(Report) /\ WF_vars(ArriveAwaited)
       /\ WF_vars(DropKnown) /\ WF_vars(TakeForward) /\ WF_vars(IsAside)

-----------------------------------------------------------------------------
(* What must hold.                                                           *)

Here(o) == kind[o] \in {"here", "both"}
There(o) == kind[o] \in {"there", "both"}

NoneTwice == \A o \in Inputs : taken[o] <= 1

\* What a position has passed was decided, or stands in the inbox; what was passed
\* there was taken.
NoneLost ==
  /\ \A o \in Inputs : Has(mark, o) => (Here(o) => o \in had) /\ (There(o) => \E i \in 1..Len(inbox) : inbox[i].o = o)
  /\ \A i \in 1..looked : taken[inbox[i].o] > 0 \/ inbox[i].o \in AsideOrigins(aside)

\* With fairness: everything is decided where it belongs, once, and the position passes it.
AllArrive ==
  <>[](/\ \A o \in Inputs : (Here(o) => o \in had) /\ (There(o) => taken[o] = 1)
       /\ mark.low = N + 1)

-----------------------------------------------------------------------------
(* What must be reachable, or the above says little.                         *)

NeverTwiceInInbox == Again = 0
NeverReordered == ~ \E i, j \in 1..Len(inbox) : i < j /\ inbox[i].o > inbox[j].o /\ ~ \E l \in 1..i : inbox[l].o = inbox[j].o
NeverForwardedAnew == ~ \E f, g \in sent : f.o = g.o /\ f.low # g.low
NeverAsideBehindTaken == ~ \E i \in aside : \E j \in done : j > i
NeverForgotten == origins.low <= 1
NeverDecisionLost == ~ \E o \in Inputs : kind[o] = "both" /\ o \notin had /\ taken[o] > 0 /\ senders > 1
=============================================================================
