------------------------------ MODULE Compact ------------------------------
(* How a journal is compacted: section 1 of LOG.                             *)
(*                                                                           *)
(* An owner appends a checkpoint, walks the rows of its store, appends a     *)
(* carry for each whose last image stands below the checkpoint, and then     *)
(* deletes what stands below it. Decisions go on meanwhile. Only accepted    *)
(* records are modelled: that all agree on those is Append.tla's.            *)
EXTENDS Naturals, Sequences

CONSTANTS
  Rows,              \* of one instance: 1..Rows, in the order of the walk
  MaxDecisions,
  MaxRounds,
  MaxFlight,         \* records that are not in the journal yet
  MaxOwners,         \* one after the other
  \* The rules.
  WalkAwaits,        \* the walk begins when the checkpoint is acknowledged, and what was before it in the store
  AllCarried,        \* each row whose image lies below the checkpoint is carried
  FlightRegarded,    \* but not an image that a record under way has replaced already
  CheckpointAhead,   \* the checkpoint says what every record before it did, those under way included
  TrimAwaits,        \* nothing is deleted before the last carry is acknowledged
  TrimBelowEmitted   \* nor what is not emitted

VARIABLES
  log,      \* accepted records; what was trimmed stays here, for comparison
  start,    \* the first that can still be read
  flight,   \* records that the owner appended and that are not in the journal
  acked,    \* up to here the owner knows that they are, and its store has them
  round,    \* [c, row, end]: the checkpoint, the row to look at next, the last carry
  trims,    \* deletions under way
  emitted,  \* everything that records up to this one emit has left
  decided, rounds, owners

vars == <<log, start, flight, acked, round, trims, emitted, decided, rounds, owners>>

All == 1..Rows
Seq0 == Len(log) + Len(flight) \* the last sequence given out

-----------------------------------------------------------------------------
(* The fold. A row's value is the sequence of the decision that set it.      *)

Nothing == [row |-> [r \in All |-> 0], base |-> [r \in All |-> 0], pos |-> 0]

Set(st, r, value, seq) == [st EXCEPT !.row[r] = value, !.base[r] = seq]

Do(st, rec, seq) ==
  CASE rec.k = "set"   -> [Set(st, rec.r, seq, seq) EXCEPT !.pos = @ + 1]
    [] rec.k = "gone"  -> [Set(st, rec.r, 0, 0) EXCEPT !.pos = @ + 1]
    [] rec.k = "purge" -> [Nothing EXCEPT !.pos = st.pos + 1]
    [] rec.k = "carry" -> Set(st, rec.r, rec.v, seq)
    [] OTHER           -> st

RECURSIVE Fold(_, _, _, _)
Fold(st, records, from, to) ==
  IF from > to THEN st ELSE Fold(Do(st, records[from], from), records, from + 1, to)

Whole(to) == Fold(Nothing, log, 1, to)
Compacted == \* a checkpoint at the log's start is trusted
  IF start = 1 THEN Whole(Len(log)) ELSE Fold([Nothing EXCEPT !.pos = log[start].v], log, start, Len(log))
Deciding == Fold(Nothing, log \o flight, 1, Seq0)

\* What was decided, whatever was carried.
Decision(rec) == rec.k \in {"set", "gone", "purge"}
RECURSIVE Decided(_, _)
Decided(st, i) ==
  IF i > Len(log) THEN st
  ELSE Decided(IF Decision(log[i]) THEN Do(st, log[i], i) ELSE st, i + 1)

-----------------------------------------------------------------------------
Record(k, r, v) == [k |-> k, r |-> r, v |-> v]
Send(rec) == Len(flight) < MaxFlight /\ flight' = Append(flight, rec)

Decide ==
  /\ decided < MaxDecisions
  /\ \/ \E k \in {"set", "gone"}, r \in All : Send(Record(k, r, 0))
     \/ Send(Record("purge", 0, 0))
  /\ decided' = decided + 1
  /\ UNCHANGED <<log, start, acked, round, trims, emitted, rounds, owners>>

NoRound == [c |-> 0, row |-> 1, end |-> 0]

Begin ==
  /\ round.c = 0
  /\ rounds < MaxRounds
  /\ Send(Record("checkpoint", 0, IF CheckpointAhead THEN Deciding.pos ELSE Whole(acked).pos))
  /\ round' = [NoRound EXCEPT !.c = Seq0 + 1]
  /\ rounds' = rounds + 1
  /\ UNCHANGED <<log, start, acked, trims, emitted, decided, owners>>

\* Does a record under way set, remove or purge the row?
Replaced(r) ==
  \E i \in (acked + 1)..Seq0 :
    LET rec == (log \o flight)[i] IN rec.k = "purge" \/ (rec.k \in {"set", "gone"} /\ rec.r = r)

\* Look at the next row of the store.
Walk ==
  LET r     == round.row
      st    == Whole(acked)
      old   == st.row[r] # 0 /\ st.base[r] < round.c
      carry == old /\ ~(FlightRegarded /\ Replaced(r)) /\ (AllCarried \/ r # 1)
  IN /\ round.c # 0 /\ r <= Rows
     /\ WalkAwaits => acked >= round.c
     /\ IF carry THEN Send(Record("carry", r, st.row[r])) ELSE UNCHANGED flight
     /\ round' = [round EXCEPT !.row = r + 1]
     /\ UNCHANGED <<log, start, acked, trims, emitted, decided, rounds, owners>>

\* The walk is over: a carry without rows says so.
End ==
  /\ round.c # 0 /\ round.row > Rows /\ round.end = 0
  /\ Send(Record("end", 0, round.c))
  /\ round' = [round EXCEPT !.end = Seq0 + 1]
  /\ UNCHANGED <<log, start, acked, trims, emitted, decided, rounds, owners>>

Trim ==
  /\ round.end # 0
  /\ acked >= round.c
  /\ TrimAwaits => acked >= round.end
  /\ TrimBelowEmitted => emitted >= round.c - 1
  /\ trims' = trims \cup {round.c}
  /\ round' = NoRound
  /\ UNCHANGED <<log, start, flight, acked, emitted, decided, rounds, owners>>

\* Everything that is acknowledged may have been emitted.
Emit ==
  /\ emitted < acked
  /\ emitted' = acked
  /\ UNCHANGED <<log, start, flight, acked, round, trims, decided, rounds, owners>>

Acknowledge ==
  /\ acked < Len(log)
  /\ acked' = Len(log)
  /\ UNCHANGED <<log, start, flight, round, trims, emitted, decided, rounds, owners>>

\* Another owner reads the journal. Of what was under way nothing more is accepted;
\* a deletion may still be carried out.
OwnerReplaced ==
  /\ owners < MaxOwners
  /\ owners' = owners + 1
  /\ flight' = <<>>
  /\ acked' = Len(log)
  /\ round' = NoRound
  /\ UNCHANGED <<log, start, trims, emitted, decided, rounds>>

-----------------------------------------------------------------------------
(* The brokers.                                                              *)

Land ==
  /\ flight # <<>>
  /\ log' = Append(log, Head(flight))
  /\ flight' = Tail(flight)
  /\ UNCHANGED <<start, acked, round, trims, emitted, decided, rounds, owners>>

\* Exact; also when the owner that asked for it has been replaced.
Delete ==
  /\ \E c \in trims : trims' = trims \ {c} /\ start' = IF c > start THEN c ELSE start
  /\ UNCHANGED <<log, flight, acked, round, emitted, decided, rounds, owners>>

-----------------------------------------------------------------------------
Init ==
  /\ log = <<>> /\ start = 1 /\ flight = <<>> /\ acked = 0
  /\ round = NoRound /\ trims = {} /\ emitted = 0
  /\ decided = 0 /\ rounds = 0 /\ owners = 1

Next ==
  \/ Decide \/ Begin \/ Walk \/ End \/ Trim \/ Emit \/ Acknowledge \/ OwnerReplaced
  \/ Land \/ Delete

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold.                                                           *)

\* The compacted journal folds to the same rows and positions as the whole one,
\* down to where each row's last image stands.
SameRows == Compacted = Whole(Len(log))

\* Carrying changes nothing that was decided.
CarriesChangeNothing ==
  LET d == Decided(Nothing, 1) IN Whole(Len(log)).row = d.row /\ Whole(Len(log)).pos = d.pos

\* A journal that begins at a checkpoint holds the whole round of that checkpoint.
RoundIsWhole ==
  start > 1 => log[start].k = "checkpoint" /\ \E i \in start..Len(log) : log[i].k = "end" /\ log[i].v = start

\* What is not emitted can still be read.
UnemittedIsThere == start <= emitted + 1

-----------------------------------------------------------------------------
(* What must be reachable, or the above says little.                         *)

NeverTrimmedTwice == ~(start > 1 /\ \E i \in 1..(start - 1) : log[i].k = "end")
NeverDeletedLate == ~(owners > 1 /\ \E c \in trims, i \in 1..Len(log) : i > c /\ log[i].k = "checkpoint")
NeverDecidedMeanwhile ==
  ~(start > 1 /\ \E i, j \in start..Len(log) : i < j /\ log[i].k = "set" /\ log[j].k = "carry")
NeverAbandoned ==
  ~(start > 1 /\ \E i \in 1..(start - 1) : log[i].k = "checkpoint" /\ ~ \E j \in 1..Len(log) : log[j].k = "end" /\ log[j].v = i)
=============================================================================
