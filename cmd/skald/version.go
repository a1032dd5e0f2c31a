package main

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/skald-io/skald/events"
)

var versionCommand = command{
	name:    "version",
	args:    "[-o json]",
	summary: "what this binary is",
	about:   "Prints the version and commit it was built from, Go's version, and the journal format it writes;\nit reads that one and every older one.",
	setup: func(f *flag.FlagSet) func(context.Context, *env) error {
		out := outputFlag(f)
		return func(_ context.Context, e *env) error {
			v := buildVersion()
			if *out == "json" {
				newScreen(e).Object(v)
				return nil
			}
			fmt.Fprintf(e.stdout, "skald %s\ncommit %s\ngo %s\njournal format %d\n", v.Version, v.Commit, v.Go, v.JournalFormat)
			return nil
		}
	},
}

type versionView struct {
	Version       string `json:"version"`
	Commit        string `json:"commit"` // "unknown" when it was not built from a repository; "+dirty" when changed
	Go            string `json:"go"`
	JournalFormat int    `json:"journal_format"`
}

func buildVersion() versionView {
	v := versionView{Version: "(devel)", Commit: "unknown", Go: runtime.Version(), JournalFormat: events.Format}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	dirty := false
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	if dirty {
		v.Commit += "+dirty"
	}
	return v
}
