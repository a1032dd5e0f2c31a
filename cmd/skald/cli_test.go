package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestExitCodesAndStreams(t *testing.T) {
	for _, x := range []struct {
		args           string
		code           int
		stdout, stderr string // what they begin with, or hold; "": nothing at all
	}{
		{"", exitUsage, "", "Skald runs sagas on Kafka."},
		{"help", exitOK, "Skald runs sagas on Kafka.", ""},
		{"--help", exitOK, "Skald runs sagas on Kafka.", ""},
		{"help version", exitOK, "Usage: skald version", ""},
		{"help nonsense", exitUsage, "", `no command "nonsense"`},
		{"version -h", exitOK, "Usage: skald version", ""},
		{"nonsense", exitUsage, "", `skald: there is no command "nonsense"`},
		{"version --nonsense", exitUsage, "", "skald version: flag provided but not defined: -nonsense"},
		{"version extra", exitUsage, "", `unexpected argument "extra"`},
		{"version -o yaml", exitUsage, "", "text or json"},
		{"version", exitOK, "skald ", ""},
	} {
		e, stdout, stderr := testEnv()
		code := run(t.Context(), e, strings.Fields(x.args))
		if code != x.code {
			t.Errorf("skald %s: exit %d, want %d", x.args, code, x.code)
		}
		for _, s := range []struct{ name, got, want string }{{"stdout", stdout.String(), x.stdout}, {"stderr", stderr.String(), x.stderr}} {
			if (s.want == "") != (s.got == "") || !strings.Contains(s.got, s.want) {
				t.Errorf("skald %s: %s is %q, want %q in it", x.args, s.name, s.got, s.want)
			}
		}
	}
}

func TestWrongUsageShowsTheUsage(t *testing.T) {
	e, _, stderr := testEnv()
	run(t.Context(), e, []string{"version", "--x"})
	if !strings.Contains(stderr.String(), "Usage: skald version") || !strings.Contains(stderr.String(), "-o FORMAT") {
		t.Errorf("stderr: %s", stderr)
	}
}

func TestVersionNamesWhatMattersToSupport(t *testing.T) {
	e, stdout, _ := testEnv()
	if code := run(t.Context(), e, []string{"version", "-o", "json"}); code != exitOK {
		t.Fatal(code)
	}
	var v map[string]any
	if err := json.Unmarshal(stdout.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"version", "commit", "go", "journal_format"} {
		if v[k] == nil || v[k] == "" {
			t.Errorf("%s is missing: %v", k, v)
		}
	}
}

func TestEveryCommandHasAUsageThatNamesItsFlags(t *testing.T) {
	for i := range commands {
		c := &commands[i]
		f := newFlagSet(c.name)
		c.setup(f)
		u := usage(c, f)
		if c.summary == "" || c.about == "" || !strings.HasPrefix(u, "Usage: skald "+c.name) {
			t.Errorf("%s: %q", c.name, u)
		}
		if !c.hidden && !strings.Contains(overview(), c.name) {
			t.Errorf("%s is not in the overview", c.name)
		}
	}
}
