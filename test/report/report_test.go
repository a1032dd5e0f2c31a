package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// good is what each source prints when nothing is wrong.
var good = map[string]string{
	"spec":       `{"model":"A","expected":"Holds","ok":true,"states":1234567}` + "\n" + `{"model":"B","expected":"Refuted by X","ok":true,"states":3}`,
	"sim":        `{"seeds":5000,"steps":2000000,"faults":{"outage":17},"never":[],"violations":[],"hash":"00ff","steps_per_s":40000.5}`,
	"mutants":    `{"name":"a-b","caught":true}` + "\n" + `{"name":"a-c","caught":true}`,
	"simulation": `{"name":"a-b","caught":true}`,
	"oracle":     `{"name":"a-c","caught":true}`,
	"chaos":      `{"orders":100,"kills":{"random":3},"troubles":{"pause":2},"participants_killed":1,"violations":0,"decisions":10,"decided_again_alike":9,"take_over_p50_ms":400,"take_over_max_ms":900,"elapsed_s":61.2}`,
	"brokers":    `{"orders":100,"kills":{},"troubles":{"broker":2},"violations":0}`,
	"pauses":     `{"orders":100,"kills":{"random":100},"troubles":{"pause":100},"violations":0}`,
}

// write makes the page from these results, and gives it with the status.
func write(t *testing.T, results map[string]string) (page string, status int, err error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range results {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "page.md")
	status, err = program(t.Context(), dir, out)
	raw, _ := os.ReadFile(out)
	return string(raw), status, err
}

func TestThePageSaysWhatTheSourcesSaid(t *testing.T) {
	page, status, err := write(t, good)
	if err != nil || status != 0 {
		t.Fatalf("status %d: %v", status, err)
	}
	for _, want := range []string{"2 models, 1,234,570 states", "1 hold; 1 variants", "5,000 seeds, 2,000,000 steps, 40,000 a second", "| outage | 17 |", "2 of 2 caught",
		"100 sagas in 61 s", "9 of 10 decisions", "| node killed, random | 3 |", "| pause | 100 |", "| participant killed | 1 |", "| G1 |", "`go run ./test/sim -seeds 5000 -steps 250 -json`"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}

func TestWhatASourceFoundIsNoPage(t *testing.T) {
	for name, text := range map[string]string{
		"spec":    `{"model":"A","expected":"Holds","ok":false}`,
		"sim":     `{"seeds":1,"violations":[{"what":"an effect is lost"}]}`,
		"mutants": `{"name":"a-b","caught":false}`,
		"chaos":   `{"violations":2}`,
	} {
		results := map[string]string{}
		for n, g := range good {
			results[n] = g
		}
		results[name] = text
		page, status, err := write(t, results)
		if status != 1 || err == nil || !strings.Contains(err.Error(), name) || page != "" {
			t.Errorf("%s: status %d, %v, and a page of %d bytes", name, status, err, len(page))
		}
		results[name] = ""
		if _, status, err := write(t, results); status != 2 || err == nil {
			t.Errorf("%s, empty: status %d, %v", name, status, err)
		}
	}
}
