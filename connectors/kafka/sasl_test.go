package kafka

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/sasl"
)

func firstMessage(t *testing.T, m sasl.Mechanism) (string, error) {
	t.Helper()
	_, b, err := m.Authenticate(context.Background(), "broker:9092")
	return string(b), err
}

func TestATokenOrPasswordInAFileIsReadAnewAtEachAuthentication(t *testing.T) {
	file := write(t, "secret", "one\n")
	for name, s := range map[string]SASL{
		"token":    {Mechanism: "OAUTHBEARER", TokenFile: file, Extensions: map[string]string{"a": "b"}},
		"password": {Mechanism: "PLAIN", User: "u", PasswordFile: file},
	} {
		if err := os.WriteFile(file, []byte("one\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		m := s.mechanism()
		if got, err := firstMessage(t, m); err != nil || !strings.Contains(got, "one") || strings.Contains(got, "\n") {
			t.Errorf("%s: %q %v", name, got, err)
		}
		if err := os.WriteFile(file, []byte("two"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := firstMessage(t, m); err != nil || !strings.Contains(got, "two") {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
}

func TestATokenIsGrantedByAnEndpointAndKeptForItsLife(t *testing.T) {
	grants, expires, fault := 0, `3600`, ""
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grants++
		user, pass, _ := r.BasicAuth()
		if r.ParseForm(); user != "id" || pass != "s:ecret" || r.Form.Get("grant_type") != "client_credentials" || r.Form.Get("scope") != "a b" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch fault {
		case "":
			fmt.Fprintf(w, `{"access_token":"token-%d","expires_in":%s}`, grants, expires)
		case "redirect":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		case "refused":
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"invalid_scope"}`)
		default:
			fmt.Fprint(w, fault)
		}
	}))
	defer idp.Close()
	s := SASL{Mechanism: "OAUTHBEARER", TokenURL: idp.URL + "/token", ClientID: "id", ClientSecret: "s:ecret", Scope: "a b"}
	m := s.mechanism()
	for range 3 {
		if got, err := firstMessage(t, m); err != nil || !strings.Contains(got, "auth=Bearer token-1\x01") {
			t.Fatalf("%q %v", got, err)
		}
	}
	if grants != 1 {
		t.Errorf("%d grants for one life", grants)
	}
	expires = "0.000001"
	m = s.mechanism()
	firstMessage(t, m)
	if got, err := firstMessage(t, m); err != nil || !strings.Contains(got, "token-3") {
		t.Errorf("a token that has expired was used again: %q %v", got, err)
	}
	for f, want := range map[string]string{"refused": `400 Bad Request "invalid_scope"`, "redirect": "307", "x": "no JSON", "{}": "no access_token"} {
		fault = f
		_, err := firstMessage(t, s.mechanism())
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "ecret") {
			t.Errorf("%s: %v", f, err)
		}
	}
}
