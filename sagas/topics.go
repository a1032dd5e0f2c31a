package sagas

import "slices"

// Reads are the topics of domain events that the plan's sagas start on and wait for, each once, in order.
func (p *Plan) Reads() []string {
	topics := []string{p.Start.Topic}
	for _, n := range p.Nodes {
		if n.Wait != nil && n.Wait.Event != nil {
			topics = append(topics, n.Wait.Event.Topic)
		}
	}
	return sorted(topics)
}

// Writes are the topics that the plan's sagas send commands, undos and events to, each once, in order.
func (p *Plan) Writes() []string {
	var topics []string
	for _, n := range p.Nodes {
		if n.Emit != nil {
			topics = append(topics, n.Emit.Topic)
		}
		if n.Step != nil {
			topics = append(topics, n.Step.Topic)
			if n.Step.Undo != nil {
				topics = append(topics, n.Step.Undo.Topic)
			}
		}
	}
	return sorted(topics)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return slices.Compact(s)
}
