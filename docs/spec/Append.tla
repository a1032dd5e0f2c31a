------------------------------- MODULE Append -------------------------------
(* Who may append to a shard's journal: LOG L1 to L4.                        *)
(*                                                                           *)
(* The journal is a sequence. Owners claim it, decide ahead of what is       *)
(* acknowledged, and learn offsets from acknowledgements. Whatever was sent  *)
(* once may land at any later time, in any order, twice, or never. README.md *)
(* says what this abstracts from.                                            *)
EXTENDS Naturals, Sequences, FiniteSets, TLC

CONSTANTS
  Owners,        \* one for each claim: a node that claims again is another owner
  MaxSeq,        \* decisions run no further than this sequence
  MaxInFlight,   \* decisions of one owner that are not acknowledged
  MaxLog,        \* records of the journal
  MaxAgain,      \* of them, those that landed before
  MaxLost,       \* truncations by an unclean election
  Trims,         \* owners trim the journal
  None,          \* no claim
  Stores,        \* a store follows the journal, and is opened anew
  Returns,       \* a record that an election has lost may land again
  \* The rules. A model without one of them is refuted by the story of that rule.
  NoncesName,    \* L1: records name the claim's nonce, not its offset
  NonceChecked,  \* L2: a record of another claim than the current one is ignored
  HashChecked,   \* L2: a record carries the hash of the one it was decided on
  NeverAnew,     \* L2: after an unknown outcome nothing is decided in the same epoch
  ClaimAwaited,  \* L3: an owner reads to its own claim before it decides
  AcksCompared,  \* L3: an ack at another offset than the expected one is read back
  ReadBackWhole, \* L3: what slipped in and was trimmed since may have been a claim
  StoreVerified, \* L4: a store is trusted iff its last record stands in the journal
  StoreGoesBack  \* L4: what it read behind that record is read again

VARIABLES
  log,    \* the journal; what was trimmed stays here, for comparison
  start,  \* its first record that can still be read
  sent,   \* every record that was ever appended, and may land
  acks,   \* <<record, offset>>: the answers under way to owners
  owner,  \* what each owner is and knows
  store,  \* what the store holds
  lost    \* truncations so far

vars == <<log, start, sent, acks, owner, store, lost>>

Symmetry == Permutations(Owners)

(* A decision is its history: the tags of all decisions it builds on, its    *)
(* own last. So its sequence is the length, the hash of the record before is *)
(* all but the last, and equal histories are equal bytes.                    *)
Tag(o, try) == <<o, try>>
Front(h) == SubSeq(h, 1, Len(h) - 1)
Prefix(g, h) == Len(g) <= Len(h) /\ SubSeq(h, 1, Len(g)) = g

ClaimOf(o) == [k |-> "claim", by |-> o, n |-> None, h |-> <<>>]
DecisionOf(o, name, h) == [k |-> "decision", by |-> o, n |-> name, h |-> h]

\* What a claim at an offset is called in records.
Name(rec, offset) == IF NoncesName THEN rec.by ELSE offset

-----------------------------------------------------------------------------
(* A reader: the same for owners, stores, rebuilds and tools.                *)

Blank == [n |-> None, h |-> <<>>, ok |-> FALSE, at |-> 0]

Verdict(st, rec) ==
  IF rec.k = "claim" THEN "accepted"
  ELSE IF st.n = None \/ (NonceChecked /\ rec.n # st.n) THEN "foreign"
  ELSE IF ~st.ok THEN "ended"
  ELSE IF Len(rec.h) <= Len(st.h) THEN "duplicate"
  ELSE IF Len(rec.h) # Len(st.h) + 1 \/ (HashChecked /\ Front(rec.h) # st.h) THEN "gap"
  ELSE "accepted"

Take(st, rec, offset, shift) ==
  LET v == Verdict(st, rec) IN
  IF rec.k = "claim" THEN [st EXCEPT !.n = Name(rec, offset + shift), !.ok = TRUE]
  ELSE IF v = "accepted" THEN [st EXCEPT !.h = rec.h, !.at = offset]
  ELSE IF v = "gap" THEN [st EXCEPT !.ok = FALSE]
  ELSE st

RECURSIVE Fold(_, _, _, _)
Fold(st, from, to, shift) ==
  IF from > to THEN st ELSE Fold(Take(st, log[from], from, shift), from + 1, to, shift)

\* A reader of the whole journal, and one that begins where it is trimmed to and
\* trusts the record there for all before it.
Whole(to) == Fold(Blank, 1, to, 0)
Trusted == [n |-> log[start].n, h |-> Front(log[start].h), ok |-> TRUE, at |-> 0]
Readable(to) == Fold(IF start = 1 THEN Blank ELSE Trusted, start, to, 0)

RECURSIVE Accepted(_, _)
Accepted(st, i) == \* the offsets of accepted decisions, from i on
  IF i > Len(log) THEN {}
  ELSE (IF log[i].k = "decision" /\ Verdict(st, log[i]) = "accepted" THEN {i} ELSE {})
       \cup Accepted(Take(st, log[i], i, 0), i + 1)

-----------------------------------------------------------------------------
(* Owners.                                                                   *)

Idle == [pc |-> "idle", n |-> None, h |-> <<>>, ahead |-> <<>>, next |-> 0, try |-> 0]
Over == [Idle EXCEPT !.pc = "over"]
Become(o, x) == owner' = [owner EXCEPT ![o] = x]

Claim(o) ==
  /\ owner[o].pc = "idle"
  /\ sent' = sent \cup {ClaimOf(o)}
  /\ Become(o, [Idle EXCEPT !.pc = "claiming", !.h = IF ClaimAwaited THEN <<>> ELSE Readable(Len(log)).h])
  /\ UNCHANGED <<log, start, acks, store, lost>>

\* The claim is acknowledged: read to it, and to the end.
ReadToClaim(o) ==
  /\ owner[o].pc = "claiming"
  /\ \E a \in acks :
       /\ a[1] = ClaimOf(o)
       /\ LET st   == Readable(Len(log))
              name == Name(a[1], a[2])
              owns == [Idle EXCEPT !.pc = "own", !.n = name]
          IN Become(o, IF ~ClaimAwaited
                         THEN [owns EXCEPT !.h = owner[o].h, !.ahead = owner[o].h, !.next = a[2] + 1]
                       ELSE IF a[2] <= Len(log) /\ st.ok /\ st.n = name
                         THEN [owns EXCEPT !.h = st.h, !.ahead = st.h, !.next = Len(log) + 1]
                       ELSE Over)
  /\ UNCHANGED <<log, start, sent, acks, store, lost>>

Decide(o) ==
  LET w == owner[o]
      h == Append(w.ahead, Tag(o, w.try))
  IN /\ w.pc = "own"
     /\ Len(h) <= MaxSeq
     /\ Len(h) - Len(w.h) <= MaxInFlight
     /\ sent' = sent \cup {DecisionOf(o, w.n, h)}
     /\ Become(o, [w EXCEPT !.ahead = h])
     /\ UNCHANGED <<log, start, acks, store, lost>>

\* What the owner finds between its last accepted record and the ack at i.
HarmlessUpTo(w, i) ==
  LET own   == [n |-> w.n, h |-> w.h, ok |-> TRUE, at |-> 0]
      from  == IF start > w.next THEN start ELSE w.next
      found == Fold(own, from, i - 1, 0)
  IN /\ ReadBackWhole => start <= w.next
     /\ i <= Len(log)
     /\ found.ok /\ found.n = w.n /\ found.h = w.h

Acknowledge(o) ==
  LET w == owner[o] IN
  /\ w.pc = "own"
  /\ w.h # w.ahead
  /\ \E a \in acks :
       /\ a[1] = DecisionOf(o, w.n, SubSeq(w.ahead, 1, Len(w.h) + 1))
       /\ Become(o, IF a[2] = w.next \/ ~AcksCompared \/ (a[2] > w.next /\ HarmlessUpTo(w, a[2]))
                      THEN [w EXCEPT !.h = a[1].h, !.next = a[2] + 1]
                      ELSE Over)
  /\ UNCHANGED <<log, start, sent, acks, store, lost>>

\* No answer came. What was sent may still land.
GiveUp(o) ==
  /\ owner[o].pc \in {"claiming", "own"}
  /\ owner[o].pc = "own" => owner[o].h # owner[o].ahead
  /\ Become(o, IF NeverAnew \/ owner[o].pc = "claiming" \/ owner[o].try = 1
                 THEN Over
                 ELSE [owner[o] EXCEPT !.ahead = owner[o].h, !.try = 1])
  /\ UNCHANGED <<log, start, sent, acks, store, lost>>

\* An owner that compacted deletes what lies below a record of its own.
Trim(o) ==
  /\ Trims
  /\ owner[o].pc = "own"
  /\ \E i \in (start + 1)..(owner[o].next - 1) :
       /\ i <= Len(log)
       /\ log[i].k = "decision"
       /\ log[i].by = o
       /\ Prefix(log[i].h, owner[o].h)
       /\ start' = i
  /\ UNCHANGED <<log, sent, acks, owner, store, lost>>

-----------------------------------------------------------------------------
(* The brokers, and the way to them.                                         *)

Again == Len(log) - Cardinality({log[i] : i \in 1..Len(log)})

Put(rec) ==
  /\ Len(log) < MaxLog
  /\ log' = Append(log, rec)
  /\ acks' = acks \cup {<<rec, Len(log) + 1>>}
  /\ UNCHANGED <<start, sent, owner, store, lost>>

Landed(rec) == \E i \in 1..Len(log) : log[i] = rec

\* At any time, in any order: also when its owner has long been replaced.
Land == \E rec \in sent : ~Landed(rec) /\ Put(rec)

\* A batch that was sent again although it had arrived.
LandAgain == Again < MaxAgain /\ \E rec \in sent : Landed(rec) /\ Put(rec)

\* An unclean election: acknowledged records are gone.
Truncate ==
  /\ lost < MaxLost
  /\ \E n \in start..(Len(log) - 1) :
       /\ log' = SubSeq(log, 1, n)
       /\ sent' = IF Returns THEN sent ELSE sent \ {log[i] : i \in (n + 1)..Len(log)}
  /\ lost' = lost + 1
  /\ store' = [store EXCEPT !.sure = FALSE]
  /\ UNCHANGED <<start, acks, owner>>

-----------------------------------------------------------------------------
(* A store: the state of a reader, kept between runs of a node.              *)

Empty == [st |-> Blank, next |-> 1, sure |-> TRUE]

\* Somebody, owner or follower, applies the next record to it.
Apply ==
  /\ Stores
  /\ store.sure
  /\ store.next \in start..Len(log)
  /\ store' = [store EXCEPT !.st = Take(@, log[store.next], store.next, 0), !.next = @ + 1]
  /\ UNCHANGED <<log, start, sent, acks, owner, lost>>

\* A node starts with it.
Reopen ==
  /\ Stores
  /\ ~store.sure
  /\ LET st    == store.st
         holds == st.at > 0 /\ st.at <= Len(log) /\ log[st.at].k = "decision" /\ log[st.at].h = st.h
         fresh == [st |-> Readable(Len(log)), next |-> Len(log) + 1, sure |-> TRUE]
         back  == [n |-> log[st.at].n, h |-> st.h, ok |-> TRUE, at |-> st.at]
     IN store' =
          IF store.next > Len(log) + 1 \/ (StoreVerified /\ ~holds) \/ st.h = <<>> THEN fresh
          ELSE IF StoreVerified /\ StoreGoesBack THEN [st |-> back, next |-> st.at + 1, sure |-> TRUE]
          ELSE [store EXCEPT !.sure = TRUE]
  /\ UNCHANGED <<log, start, sent, acks, owner, lost>>

-----------------------------------------------------------------------------
Init ==
  /\ log = <<>>
  /\ start = 1
  /\ sent = {}
  /\ acks = {}
  /\ owner = [o \in Owners |-> Idle]
  /\ store = Empty
  /\ lost = 0

Next ==
  \/ \E o \in Owners : Claim(o) \/ ReadToClaim(o) \/ Decide(o) \/ Acknowledge(o) \/ GiveUp(o) \/ Trim(o)
  \/ Land \/ LandAgain \/ Truncate
  \/ Apply \/ Reopen

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold.                                                           *)

\* Whoever reads accepts the same: in a copy of the journal whose offsets are
\* others, and from where it is trimmed to.
Same(a, b) == a.h = b.h /\ a.ok = b.ok
ReadersAgree ==
  /\ Fold(Blank, 1, Len(log), 1).h = Whole(Len(log)).h
  /\ start > 1 => Same(Readable(Len(log)), Whole(Len(log)))

\* An owner reads by its acknowledgements, and takes for accepted what all accept.
\* It emits what it takes for accepted.
OwnersAgree ==
  \A o \in Owners : owner[o].pc = "own" => Prefix(owner[o].h, Whole(Len(log)).h)

\* A store that a node begins with is what a rebuild would give.
StoresAgree ==
  store.sure /\ store.next <= Len(log) + 1 => store.st = Whole(store.next - 1)

\* An accepted decision is of the owner whose claim is the last one before it.
LastClaim(i) == CHOOSE j \in 1..i : log[j].k = "claim" /\ \A l \in (j + 1)..i : log[l].k # "claim"
NoneSuperseded ==
  \A i \in Accepted(Blank, 1) : log[LastClaim(i)].by = log[i].by

\* Accepted decisions are one history: each was decided on the ones before it.
OneHistory ==
  LET acc == Accepted(Blank, 1) IN
  \A i, j \in acc : i < j => Prefix(log[i].h, log[j].h) /\ log[i].h # log[j].h

-----------------------------------------------------------------------------
(* What must be reachable, or the above says little.                         *)

NeverLandsAfterNewClaim ==
  ~ \E i, j \in 1..Len(log) : i < j /\ log[i].k = "claim" /\ log[j].k = "decision" /\ log[j].by # log[i].by
      /\ \E l \in 1..(i - 1) : log[l] = ClaimOf(log[j].by)
NeverTwice == Again = 0
NeverReordered ==
  ~ \E i, j \in 1..Len(log) : i < j /\ log[i].k = "decision" /\ log[j].k = "decision" /\ log[i].by = log[j].by /\ Len(log[i].h) > Len(log[j].h)
      /\ ~ \E l \in 1..(i - 1) : log[l] = log[j]
NeverAckLost == ~ \E o \in Owners : owner[o].pc = "over" /\ \E a \in acks : a[1].k = "decision" /\ a[1].by = o
NeverThreeDecide ==
  ~ \E a, b, c \in Accepted(Blank, 1) : Cardinality({log[a].by, log[b].by, log[c].by}) = 3
NeverReadBack ==
  ~ \E o \in Owners : owner[o].pc = "own" /\ \E i \in 1..Len(log) : i < owner[o].next /\ log[i].by # o
      /\ \E l \in 1..(i - 1) : log[l].k = "decision" /\ log[l].by = o
NeverClaimAgain ==
  ~ \E i, j, l \in 1..Len(log) : i < j /\ j < l /\ log[i].k = "claim" /\ log[l] = log[i] /\ log[j].k = "claim" /\ log[j] # log[i]
=============================================================================
