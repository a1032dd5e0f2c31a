//go:build mutants

package mutant

import "os"

// EnvName is the environment variable that switches a mutant on.
const EnvName = "SKALD_MUTANT"

var active = os.Getenv(EnvName)

func init() {
	if active == "" {
		return
	}
	for _, m := range All {
		if m.Name == active {
			return
		}
	}
	panic(EnvName + " names no mutant: " + active)
}

// On reports whether the named mutant is switched on. It is safe for concurrent use.
func On(name string) bool { return name == active }
