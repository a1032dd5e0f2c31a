package main

import (
	"fmt"
	"slices"

	"github.com/skald-io/skald/events"
)

// participants do what they are told, by the rules of docs/protocol.md: they lie about nothing, and are slow, die,
// answer twice, late, in any order, or never.
type participants struct {
	s        *simulation
	commands []*command // as they landed
	next     int        // of commands, to be read
	replies  []reply    // given, and not sent yet
	answers  map[string]answer
	undone   map[string]bool                         // forward keys that must not begin any more
	silent   map[string]bool                         // attempts that are never answered while faults last
	applied  map[events.InstanceID]map[string]string // effects: types by forward key
	effects  map[string]bool                         // forward keys whose effect is there
}

// answer is what was said under an idempotency key, and is said again.
type answer struct{ outcome, attempt string }

// command is one as participants read it.
type command struct {
	*decided
	id, key, undoes, typ string
	expiry               int64 // ms since 1970; 0: none
}

type reply struct {
	to            *command
	outcome, code string
}

func newParticipants(s *simulation) *participants {
	return &participants{s: s, answers: map[string]answer{}, undone: map[string]bool{}, silent: map[string]bool{},
		applied: map[events.InstanceID]map[string]string{}, effects: map[string]bool{}}
}

func (p *participants) takes(m *events.Message, d *decided) {
	if d.read == nil {
		header := func(name string) string { v, _ := m.Header(name); return v }
		c := &command{decided: d, id: header(events.HeaderID), key: header(events.HeaderIdempotencyKey), undoes: header(events.HeaderUndoes), typ: header(events.HeaderType)}
		if expiry := header(events.HeaderExpiryTime); expiry != "" {
			at, err := events.ParseTimestamp(expiry)
			if err != nil {
				p.s.wrong("command %s expires at %q", c.id, expiry)
			}
			c.expiry = at
		}
		d.read = c
	}
	p.commands = append(p.commands, d.read)
}

// act lets one participant take one command, most times one that none took yet, or send a reply.
func (p *participants) act() {
	rng := p.s.rng
	if n := len(p.replies); n > 0 && (n > 12 || rng.IntN(3) > 0) {
		p.sendOne(rng.IntN(min(n, 4)))
		return
	}
	if len(p.commands) == 0 {
		return
	}
	k := rng.IntN(len(p.commands))
	switch {
	case p.next < len(p.commands) && p.s.chance(75):
		// The next few, in any order: topics are read apart.
		k = p.next + rng.IntN(min(6, len(p.commands)-p.next))
		p.commands[p.next], p.commands[k] = p.commands[k], p.commands[p.next]
		k = p.next
		p.next++
	case k >= p.next:
		return
	case !p.s.may(commandAgain):
		return
	default:
		p.s.lands(commandAgain)
	}
	p.execute(p.commands[k])
}

// executeAll takes what nobody took, and sends what was not sent.
func (p *participants) executeAll() {
	for ; p.next < len(p.commands); p.next++ {
		p.execute(p.commands[p.next])
	}
	p.sendAll()
}

func (p *participants) sendAll() {
	for len(p.replies) > 0 {
		p.sendOne(0)
	}
}

// executeOpenAgain takes again what belongs to instances that have not ended: their replies may be lost.
func (p *participants) executeOpenAgain() {
	for _, c := range p.commands[:p.next] {
		if !p.s.final(c.instance) {
			p.execute(c)
		}
	}
	p.sendAll()
}

// executeEverythingAgain is the worst that redelivery can do: each command once more, in any order.
func (p *participants) executeEverythingAgain() {
	seen := map[*command]bool{}
	for _, k := range p.s.rng.Perm(len(p.commands)) {
		if c := p.commands[k]; !seen[c] {
			seen[c] = true
			p.execute(c)
		}
	}
	p.sendAll()
}

// execute takes a command and answers it.
func (p *participants) execute(c *command) {
	s := p.s
	s.happens()
	was, known := p.answers[c.key]
	outcome, code := was.outcome, ""
	late := c.expiry != 0 && c.expiry < s.now
	if c.undoes != "" {
		if !p.effects[c.undoes] && !p.undone[c.undoes] {
			s.lands(undoFirst)
		}
		p.undone[c.undoes] = true
	}
	switch part := s.parts[c.part]; {
	case known && !s.healed && outcome == "done" && was.attempt != c.id && part.undoable(c.typ) && s.chance(20) && s.may(duplicateRejected):
		s.lands(duplicateRejected)
		outcome, code = "rejected", "duplicate"
	case known:
	case c.undoes == "" && p.undone[c.key]:
		outcome, code = "rejected", events.CodeUndone
	case late:
		outcome, code = "rejected", events.CodeExpired
		s.lands(commandExpired)
	default:
		outcome = "done"
		if !s.healed {
			outcome = part.outcome(s.rng, c.typ, c.undoes != "")
		}
		switch {
		case outcome == "done" && c.undoes != "":
			delete(p.applied[c.instance], c.undoes)
			delete(p.effects, c.undoes)
		case outcome == "done":
			if p.applied[c.instance] == nil {
				p.applied[c.instance] = map[string]string{}
			}
			p.applied[c.instance][c.key], p.effects[c.key] = c.typ, true
		}
		if outcome == "done" || outcome == "rejected" {
			p.answers[c.key] = answer{outcome, c.id}
			if !s.healed && s.chance(4) && s.may(participantDies) {
				s.lands(participantDies)
				p.commands = append(p.commands, c)
				return
			}
		}
	}
	p.answer(c, outcome, code)
	if outcome == "progress" { // it is still at it, and comes to an end
		p.commands = append(p.commands, c)
	}
}

func (p *participants) answer(c *command, outcome, code string) {
	s := p.s
	if !s.healed {
		if s.chance(2) && s.may(neverAnswers) {
			p.silent[c.id] = true
		}
		if p.silent[c.id] {
			s.lands(neverAnswers)
			return
		}
		if s.chance(8) && s.may(replyLost) {
			s.lands(replyLost)
			return
		}
	}
	p.replies = append(p.replies, reply{c, outcome, code})
	if !s.healed && s.chance(5) && s.may(replyTwice) {
		s.lands(replyTwice)
		p.replies = append(p.replies, reply{c, outcome, code})
	}
}

// sendOne sends the kth of the replies that wait.
func (p *participants) sendOne(k int) {
	s := p.s
	if k > 0 && !s.may(replyDisordered) {
		k = 0
	}
	if k > 0 {
		s.lands(replyDisordered)
	}
	r := p.replies[k]
	p.replies = slices.Delete(p.replies, k, k+1)
	if r.to.expiry != 0 && r.to.expiry < s.now {
		s.lands(replyLate)
	}
	headers := []events.Header{{Key: events.HeaderCausationID, Value: []byte(r.to.id)}, {Key: events.HeaderOutcome, Value: []byte(r.outcome)}}
	if r.code != "" {
		headers = append(headers, events.Header{Key: events.HeaderErrorCode, Value: []byte(r.code)})
	}
	s.comes(events.Message{Topic: repliesTopic, Partition: s.anyShard(), Key: []byte(r.to.key), Value: []byte(`{}`), Headers: headers},
		func() string { return fmt.Sprintf("%s %s to %s", r.outcome, r.code, r.to.typ) })
}

// effects are the types of an instance's commands whose effect is there, sorted.
func (p *participants) effectsOf(id events.InstanceID) (types []string) {
	for _, typ := range p.applied[id] {
		types = append(types, typ)
	}
	slices.Sort(types)
	return types
}
