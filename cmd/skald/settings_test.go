package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated pages anew")

func TestTheConfigurationPageIsCurrent(t *testing.T) {
	file := filepath.Join(moduleRoot, "docs", "configuration.md")
	want := configurationPage()
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("docs/configuration.md is not what the tables say (%v): run go generate ./cmd/skald", err)
	}
}

func TestHelpListsEverySettingOnce(t *testing.T) {
	text := connectionHelp()
	for _, s := range allSettings() {
		if n := strings.Count(text, "$"+s.Env()+"\n"); n != 1 {
			t.Errorf("%s stands there %d times", s.Key, n)
		}
	}
}

func TestACommandTakesItsConnectionFromFlagsVariablesAndFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "skald.yaml")
	if err := os.WriteFile(file, []byte("app: shop\nkafka:\n  broker: a:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{[]string{"topics", "plan", "--config", file}, nil, file + ":3: unknown key kafka.broker (did you mean kafka.brokers?)"},
		{[]string{"topics", "plan"}, map[string]string{"SKALD_CONFIG": file}, file + ":3: unknown key"},
		{[]string{"topics", "plan", "--tls-ca-file", "/nowhere"}, nil, "--tls-ca-file: kafka.tls.ca-file: open /nowhere"},
		{[]string{"topics", "plan"}, map[string]string{"SKALD_SASL_MECHANISM": "X"}, `$SKALD_SASL_MECHANISM: kafka.sasl.mechanism: "X"`},
		{[]string{"topics", "plan"}, map[string]string{"SKALD_APP": "a b"}, `$SKALD_APP: app: "a b"`},
	} {
		code, _, stderr := skald(t, x.env, x.args...)
		if code != exitFailed || !strings.Contains(stderr, x.want) {
			t.Errorf("%v: %d %s, want %s", x.args, code, stderr, x.want)
		}
	}
	code, stdout, _ := skald(t, map[string]string{"SKALD_APP": "shop"}, "topics", "plan")
	if code != exitOK || !strings.Contains(stdout, "shop.journal") {
		t.Errorf("%d %s", code, stdout)
	}
}

// skald runs a command line in an environment.
func skald(t *testing.T, vars map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	e, out, errs := testEnv()
	e.getenv = func(name string) string { return vars[name] }
	code = run(t.Context(), e, args)
	return code, out.String(), errs.String()
}
