package lint

import (
	"strconv"
	"strings"
	"testing"
)

// Layers, from below. A package imports lower layers and its own component; nothing imports upwards, and
// components of one layer do not know each other.
const (
	layerEvents = iota
	layerSagas
	layerCore // store, journal, machine
	layerEngine
	layerAPI
	layerConnectors
	layerTop // cmd, test, examples
	layerFree
)

// place gives the layer and the component of a package by its path below the module.
func place(pkg string) (layer int, component string) {
	first, rest, _ := strings.Cut(pkg, "/")
	second, _, _ := strings.Cut(rest, "/")
	switch first {
	case "events":
		return layerEvents, first
	case "sagas":
		if second == "sagatest" {
			return layerTop, "test"
		}
		return layerSagas, first
	case "orchestrator":
		switch second {
		case "store", "journal", "machine":
			return layerCore, second
		case "api":
			return layerAPI, second
		}
		return layerEngine, first
	case "connectors":
		return layerConnectors, second
	case "cmd", "examples":
		return layerTop, pkg[:len(first)+len(second)+min(1, len(second))]
	case "test":
		return layerTop, "test"
	case "internal":
		if second == "mutant" || second == "jsonv1" {
			return layerFree, second
		}
	}
	return -1, ""
}

// importsPointDown is the import direction of DESIGN §6. Tests may use what the layer test/ offers as well.
var importsPointDown = goFiles(each(func(s source) []string {
	var found []string
	from, component := place(s.dir())
	if from < 0 {
		return []string{s.at(s.file.Package, "the folder %s has no place in the layers", s.dir())}
	}
	for _, spec := range s.file.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		pkg, ours := strings.CutPrefix(name, module+"/")
		if !ours {
			continue
		}
		to, other := place(pkg)
		switch {
		case to == layerFree && from != layerFree:
		case to >= 0 && to < from && from != layerFree:
		case to == from && component == other:
		case s.isTest() && other == "test": // helpers of tests, in tests
		default:
			found = append(found, s.at(spec.Pos(), "%s must not import %s", s.dir(), pkg))
		}
	}
	return found
}))

func TestImportsPointDown(t *testing.T) { importsPointDown.holds(t) }

func TestImportsThatPointUpOrAsideAreFound(t *testing.T) {
	for _, x := range []struct{ from, to, want string }{
		{"sagas/plan.go", "events", ""},
		{"sagas/document/yaml.go", "sagas", ""},
		{"orchestrator/machine/decide.go", "sagas", ""},
		{"orchestrator/shard.go", "orchestrator/journal", ""},
		{"orchestrator/store/storetest/suite.go", "orchestrator/store", ""},
		{"orchestrator/api/client/client.go", "orchestrator", ""},
		{"connectors/kafka/log.go", "orchestrator", ""},
		{"cmd/skald/main.go", "connectors/kafka", ""},
		{"cmd/skald/main.go", "cmd/skald/internal/shop", ""},
		{"sagas/sagatest/given.go", "orchestrator/machine", ""},
		{"test/sim/world.go", "test/check/checker", ""},
		{"connectors/kafka/log_test.go", "test/kafka", ""},
		{"events/record.go", "internal/mutant", ""},

		{"events/record.go", "sagas", "events must not import sagas"},
		{"events/record_test.go", "sagas", "events must not import sagas"},
		{"sagas/plan.go", "orchestrator/machine", "must not"},
		{"sagas/plan.go", "sagas/sagatest", "must not"},
		{"orchestrator/journal/fold.go", "orchestrator/store", "must not"},
		{"orchestrator/machine/decide.go", "orchestrator", "must not"},
		{"orchestrator/shard.go", "connectors/kafka", "must not"},
		{"orchestrator/shard_test.go", "connectors/kafka", "must not"},
		{"orchestrator/shard.go", "orchestrator/api", "must not"},
		{"orchestrator/api/server.go", "connectors/kafka", "must not"},
		{"connectors/kafka/log.go", "connectors/participant", "must not"},
		{"connectors/kafka/log.go", "test/kafka", "must not"},
		{"cmd/skald/main.go", "test/kafka", "must not"},
		{"cmd/skald/main.go", "cmd/skaldvet", "must not"},
		{"internal/mutant/on.go", "events", "must not"},
		{"internal/other/x.go", "events", "no place"},
		{"util/x.go", "events", "no place"},
	} {
		importsPointDown.finds(t, x.from, "package x\n\nimport \""+module+"/"+x.to+"\"\n", x.want)
	}
}
