package lint

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// There may be no container engine where tests run. What can be known without one is checked here: the
// shape of docker-compose.yml, that its Dockerfile hangs together, and that its build command builds.

// yamlLeaves reads the plain kind of YAML that docker-compose.yml keeps to: two spaces a level, one key or
// one list element a line, strings quoted with double quotes or bare, lists of strings on one line. It gives
// the leaves by their path.
func yamlLeaves(text string) (map[string][]string, error) {
	leaf := func(s string) ([]string, error) {
		switch {
		case strings.HasPrefix(s, "["):
			var list []string
			err := json.Unmarshal([]byte(s), &list)
			return list, err
		case strings.HasPrefix(s, `"`):
			var one string
			err := json.Unmarshal([]byte(s), &one)
			return []string{one}, err
		case strings.ContainsAny(s, "&*!|>{}#'%@`") || strings.Contains(s, ": ") || slices.Contains([]string{"yes", "no", "on", "off", "true", "false", "null", "~"}, strings.ToLower(s)):
			return nil, fmt.Errorf("%s has to be quoted", s)
		}
		return []string{s}, nil
	}
	leaves := map[string][]string{}
	keys := map[string]bool{}
	var stack []string
	deeper := true // the line before opened a level
	for i, line := range strings.Split(text, "\n") {
		fail := func(err any) (map[string][]string, error) { return nil, fmt.Errorf("line %d: %v", i+1, err) }
		trimmed := strings.TrimLeft(line, " ")
		indent := len(line) - len(trimmed)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		level := indent / 2
		switch {
		case strings.ContainsRune(line, '\t') || strings.HasSuffix(line, " ") || indent%2 != 0:
			return fail("indent by two spaces a level, with nothing behind the text")
		case level > len(stack) || level < len(stack) && deeper:
			return fail("a level that nothing opened, or an opened one without anything in it")
		}
		stack = stack[:level]
		if element, ok := strings.CutPrefix(trimmed, "- "); ok {
			v, err := leaf(element)
			if err != nil || level == 0 {
				return fail(err)
			}
			name := strings.Join(stack, ".")
			leaves[name] = append(leaves[name], v...)
			deeper = false
			continue
		}
		key, value, ok := strings.Cut(trimmed, ":")
		if !ok || key == "" || strings.ContainsAny(key, " \"'") || value != "" && value[0] != ' ' {
			return fail("neither a key nor an element")
		}
		stack = append(stack, key)
		name := strings.Join(stack, ".")
		if keys[name] {
			return fail(name + " stands twice")
		}
		keys[name] = true
		if deeper = value == ""; deeper {
			continue
		}
		v, err := leaf(strings.TrimSpace(value))
		if err != nil {
			return fail(err)
		}
		leaves[name] = v
		stack = stack[:level]
	}
	return leaves, nil
}

// composeFault says what keeps docker-compose.yml from running the demo on Kafka; "" for nothing.
func composeFault(text string) string {
	leaves, err := yamlLeaves(text)
	if err != nil {
		return err.Error()
	}
	one := func(name string) string {
		if len(leaves[name]) != 1 {
			return ""
		}
		return leaves[name][0]
	}
	command := strings.Join(leaves["services.skald.command"], " ")
	const env = "services.kafka.environment.KAFKA_"
	for _, x := range []struct {
		ok  bool
		why string
	}{
		{one("services.kafka.image") == "apache/kafka:4.1.1", "Kafka's version is not pinned"},
		{one("services.skald.build.context") == "." && one("services.skald.build.dockerfile") == "deploy/Dockerfile", "skald is not built by deploy/Dockerfile"},
		{command == "dev --demo --brokers kafka:9092", "skald does not run the demo on Kafka"},
		{one("services.skald.depends_on.kafka.condition") == "service_healthy" && len(leaves["services.kafka.healthcheck.test"]) > 1, "skald does not wait until Kafka is there"},
		{strings.Contains(one(env+"ADVERTISED_LISTENERS"), "INSIDE://kafka:9092"), "Kafka does not tell others in the network where it is"},
		{one(env+"PROCESS_ROLES") == "broker,controller", "Kafka has no controller"},
	} {
		if !x.ok {
			return x.why
		}
	}
	roles := one(env + "LISTENER_SECURITY_PROTOCOL_MAP")
	for listener := range strings.SplitSeq(one(env+"LISTENERS"), ",") {
		if name, _, ok := strings.Cut(listener, "://"); !ok || !strings.Contains(","+roles, ","+name+":") {
			return "listener " + name + " has no protocol"
		}
	}
	for _, topic := range []string{"OFFSETS_TOPIC", "TRANSACTION_STATE_LOG", "SHARE_COORDINATOR_STATE_TOPIC"} {
		if one(env+topic+"_REPLICATION_FACTOR") != "1" {
			return "one broker cannot replicate " + topic
		}
	}
	for _, port := range leaves["services.kafka.ports"] {
		if !strings.HasPrefix(port, "127.0.0.1:") {
			return "Kafka is open to the network at " + port
		}
	}
	return ""
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	top, err := root()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(top, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestComposeRunsTheDemoOnKafka(t *testing.T) {
	if why := composeFault(readFile(t, "docker-compose.yml")); why != "" {
		t.Error(why)
	}
}

func TestAFaultyComposeFileIsFound(t *testing.T) {
	good := readFile(t, "docker-compose.yml")
	for _, x := range []struct{ old, new, want string }{
		{"    image:", "\timage:", "indent"},
		{"    image:", "   image:", "indent"},
		{"    image:", "        image:", "level"},
		{"    command: [", "    command: [[", "line"},
		{"    command:", "    command", "neither"},
		{"    restart: on-failure", "    build: x", "stands twice"},
		{"    restart: on-failure", "    restart: no", "quoted"},
		{"    restart: on-failure", "    restart:\n  other:", "level"},
		{"apache/kafka:4.1.1", "apache/kafka:latest", "not pinned"},
		{"deploy/Dockerfile\n", "Dockerfile\n", "not built"},
		{"\"kafka:9092\"]", "\"localhost:9092\"]", "on Kafka"},
		{"service_healthy", "service_started", "wait"},
		{"INSIDE://kafka:9092", "INSIDE://localhost:9092", "where it is"},
		{"OUTSIDE:PLAINTEXT,", "", "no protocol"},
		{"OFFSETS_TOPIC_REPLICATION_FACTOR: \"1\"", "OFFSETS_TOPIC_REPLICATION_FACTOR: \"3\"", "cannot replicate"},
		{"127.0.0.1:19092:", "19092:", "open to the network"},
	} {
		if !strings.Contains(good, x.old) {
			t.Errorf("docker-compose.yml has no %q to damage", x.old)
		} else if why := composeFault(strings.Replace(good, x.old, x.new, 1)); !strings.Contains(why, x.want) {
			t.Errorf("with %q it is faulted for %q", x.new, why)
		}
	}
}

// dockerfileFault says what is wrong with a Dockerfile; exists tells what the repository holds. build is its
// line that builds.
func dockerfileFault(text string, exists func(name string) bool) (build, why string) {
	stages := map[string]bool{}
	made := map[string]bool{} // what the build makes
	base, user, entry := "", "", ""
	workdir := false
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		verb, rest, _ := strings.Cut(line, " ")
		args := strings.Fields(rest)
		switch verb {
		case "FROM":
			base, user, entry, workdir = args[0], "", "", false
			if len(args) == 3 && args[1] == "AS" {
				stages[args[2]] = true
			}
			if base != "scratch" && !regexp.MustCompile(`:[\w.-]*\d`).MatchString(base) {
				return "", base + " is not pinned"
			}
		case "WORKDIR":
			workdir = true
		case "COPY":
			var paths []string
			from := ""
			for _, a := range args {
				if f, ok := strings.CutPrefix(a, "--from="); ok {
					from = f
				} else if !strings.HasPrefix(a, "--") {
					paths = append(paths, a)
				}
			}
			for _, p := range paths[:len(paths)-1] {
				switch {
				case from == "" && !exists(p):
					return "", "it copies " + p + ", which is not there"
				case from != "" && !stages[from]:
					return "", "no stage is called " + from
				case from != "" && strings.HasPrefix(p, "/out/"):
					for name := range made {
						if rel, ok := strings.CutPrefix(name, p); ok {
							made[strings.TrimSuffix(paths[len(paths)-1], "/")+"/"+strings.TrimPrefix(rel, "/")] = true
						}
					}
				}
			}
		case "RUN":
			if strings.Contains(line, "go build") {
				build = rest
				if m := regexp.MustCompile(` -o (\S+)`).FindStringSubmatch(rest); m != nil {
					made[m[1]] = true
				}
				if !workdir || !strings.Contains(rest, "CGO_ENABLED=0") {
					return "", "it does not build a static binary in a folder of its own"
				}
			}
		case "USER":
			user = rest
		case "ENTRYPOINT":
			var argv []string
			if json.Unmarshal([]byte(rest), &argv) != nil || len(argv) == 0 {
				return "", "the entry point needs a shell"
			}
			entry = argv[0]
		case "CMD", "ARG", "LABEL":
		default:
			return "", "the test does not know " + verb
		}
	}
	switch {
	case build == "":
		why = "nothing is built"
	case base != "scratch":
		why = "the image holds more than it needs: " + base
	case !regexp.MustCompile(`^[1-9]\d*(:\d+)?$`).MatchString(user):
		why = "it does not run as a user of its own"
	case !made[entry]:
		why = entry + " is not what was built"
	}
	return build, why
}

func inRepository(t *testing.T) func(string) bool {
	top, err := root()
	if err != nil {
		t.Fatal(err)
	}
	return func(name string) bool {
		_, err := os.Stat(filepath.Join(top, filepath.FromSlash(name)))
		return err == nil
	}
}

func TestTheDockerfileHangsTogetherAndItsCommandBuilds(t *testing.T) {
	build, why := dockerfileFault(readFile(t, "deploy/Dockerfile"), inRepository(t))
	if why != "" {
		t.Fatal(why)
	}
	if os.Getenv("CI") == "" {
		t.Skip("the build is run where CI is set: without cgo everything is compiled anew")
	}
	out := t.TempDir()
	top, _ := root()
	cmd := exec.Command("sh", "-ec", strings.ReplaceAll(build, "/out/", out+"/"))
	cmd.Dir = top
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, text)
	}
	if text, err := exec.Command(filepath.Join(out, "skald"), "version").CombinedOutput(); err != nil {
		t.Errorf("what it builds does not run: %v\n%s", err, text)
	}
}

func TestAFaultyDockerfileIsFound(t *testing.T) {
	good := readFile(t, "deploy/Dockerfile")
	for _, x := range []struct{ old, new, want string }{
		{"golang:1.26", "golang:latest", "not pinned"},
		{"golang:1.26", "golang", "not pinned"},
		{"COPY go.mod go.sum", "COPY go.mod go.lock", "not there"},
		{"--from=build --chown", "--from=builder --chown", "no stage"},
		{"CGO_ENABLED=0 ", "", "static"},
		{"WORKDIR /src\n", "", "static"},
		{"FROM scratch", "FROM debian:12", "more than it needs"},
		{"USER 65532:65532\n", "", "user"},
		{"USER 65532:65532", "USER 0", "user"},
		{"USER 65532:65532", "USER root", "user"},
		{"ENTRYPOINT [\"/skald\"]", "ENTRYPOINT skald", "shell"},
		{"ENTRYPOINT [\"/skald\"]", "ENTRYPOINT [\"/bin/skald\"]", "not what was built"},
		{"-o /out/skald", "-o /out/skaldd", "not what was built"},
		{"go build", "go vet", "nothing is built"},
	} {
		if !strings.Contains(good, x.old) {
			t.Errorf("deploy/Dockerfile has no %q to damage", x.old)
		} else if _, why := dockerfileFault(strings.Replace(good, x.old, x.new, 1), inRepository(t)); !strings.Contains(why, x.want) {
			t.Errorf("with %q it is faulted for %q", x.new, why)
		}
	}
}
