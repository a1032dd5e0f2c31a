// Command skald is Skald's one binary: a demo that runs anywhere, and the operator's commands.
//
// Here live the commands, their flags and what they print; it may import everything. cli.go is the table of
// commands, each file of a command's name is that command. The rule that must not break: stdout carries
// results alone (so that -o json can be piped), everything else goes to stderr, and what came from outside
// is sanitised before it reaches a terminal.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1   // it was tried, and did not work out
	exitUsage       = 2   // it was asked for in a way that makes no sense
	exitInterrupted = 130 // as shells have it for SIGINT
)

// env is what a command has of the world; tests give it buffers.
type env struct {
	stdin                io.Reader
	stdout, stderr       io.Writer
	getenv               func(string) string
	environ              func() []string // all variables, or nil
	stdoutTTY, stderrTTY bool
	width                func() int // of the terminal at stderr, in columns; 0: unknown
}

// command is one row of the table.
type command struct {
	name    string // one word, or two: "topics plan"
	args    string // for the usage line
	summary string
	about   string // paragraphs for `skald help NAME`
	hidden  bool
	takes   int // arguments that are no flags, at most; they may stand before flags
	// setup declares the flags and gives the function that runs once they are parsed.
	setup func(f *flag.FlagSet) func(ctx context.Context, e *env) error
}

// The table is filled here and not by an initialiser, since help reads it.
var commands []command

func init() {
	commands = append(append([]command{devCommand, getCommand, describeCommand}, actingCommands()...),
		quarantineCommand, redriveCommand, topicsPlanCommand, topicsApplyCommand, topicsACLCommand, journalCatCommand, rebuildCommand, versionCommand)
}

// usageError is the user's: it is printed with the usage, and the exit code is 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitError ends the program with a code and, when text is not empty, a last line on stderr.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// run is main without the process: it gives the exit code.
func run(ctx context.Context, e *env, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(e.stderr, overview())
		return exitUsage
	}
	if isHelp(args[0]) {
		return help(e, args[1:])
	}
	c, rest, err := find(args)
	if err != nil {
		fmt.Fprintf(e.stderr, "skald: %s\n\n%s", err, overview())
		return exitUsage
	}
	f := newFlagSet(c.name)
	action := c.setup(f)
	switch err := parse(f, rest); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(e.stdout, usage(c, f))
		return exitOK
	case err != nil:
		return usageFailure(e, c, f, err)
	case f.NArg() > c.takes:
		return usageFailure(e, c, f, fmt.Errorf("unexpected argument %q", f.Arg(c.takes)))
	}
	err = action(ctx, e)
	var usageErr *usageError
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usageErr):
		return usageFailure(e, c, f, err)
	case errors.As(err, &exit):
		if exit.text != "" {
			fmt.Fprintf(e.stderr, "skald %s: %s\n", c.name, lines(exit.text))
		}
		return exit.code
	}
	fmt.Fprintf(e.stderr, "skald %s: %s\n", c.name, lines(err.Error()))
	return exitFailed
}

// parse is f.Parse for arguments that may stand before flags.
func parse(f *flag.FlagSet, args []string) error {
	var plain []string
	for {
		if err := f.Parse(args); err != nil {
			return err
		}
		used := len(args) - f.NArg()
		if f.NArg() == 0 || used > 0 && args[used-1] == "--" {
			plain = append(plain, f.Args()...)
			return f.Parse(append([]string{"--"}, plain...))
		}
		plain, args = append(plain, f.Arg(0)), f.Args()[1:]
	}
}

func newFlagSet(name string) *flag.FlagSet {
	f := flag.NewFlagSet("skald "+name, flag.ContinueOnError)
	f.SetOutput(io.Discard) // usage is ours
	f.Usage = func() {}
	return f
}

func usageFailure(e *env, c *command, f *flag.FlagSet, err error) int {
	fmt.Fprintf(e.stderr, "skald %s: %s\n\n%s\n`skald help %s` tells more.\n", c.name, sanitize(err.Error(), 0), flagUsage(c, f), c.name)
	return exitUsage
}

func isHelp(s string) bool { return s == "help" || s == "-h" || s == "-help" || s == "--help" }

// find takes the command's words off args.
func find(args []string) (*command, []string, error) {
	for i := range commands {
		words := strings.Fields(commands[i].name)
		if len(args) >= len(words) && slices.Equal(args[:len(words)], words) {
			return &commands[i], args[len(words):], nil
		}
	}
	var second []string
	for i := range commands {
		if rest, ok := strings.CutPrefix(commands[i].name, args[0]+" "); ok {
			second = append(second, rest)
		}
	}
	if len(second) > 0 {
		return nil, nil, fmt.Errorf("%s needs one of: %s", args[0], strings.Join(second, ", "))
	}
	return nil, nil, fmt.Errorf("there is no command %q", sanitize(args[0], 40))
}

func help(e *env, args []string) int {
	if len(args) == 0 {
		fmt.Fprint(e.stdout, overview())
		return exitOK
	}
	if len(args) == 1 && args[0] == "connection" {
		fmt.Fprint(e.stdout, connectionHelp())
		return exitOK
	}
	c, _, err := find(args)
	if err != nil {
		fmt.Fprintf(e.stderr, "skald help: %s\n\n%s", err, overview())
		return exitUsage
	}
	f := newFlagSet(c.name)
	c.setup(f)
	fmt.Fprint(e.stdout, usage(c, f))
	return exitOK
}

func overview() string {
	var b strings.Builder
	b.WriteString("Skald runs sagas on Kafka.\n\nUsage: skald COMMAND [flags]\n\n")
	for i := range commands {
		if !commands[i].hidden {
			fmt.Fprintf(&b, "  %-16s %s\n", commands[i].name, commands[i].summary)
		}
	}
	b.WriteString("  help COMMAND     what a command does, and its flags\n  help connection  how to reach Kafka: TLS, SASL, files, variables\n\nNew here? skald dev --demo\n")
	return b.String()
}

func usage(c *command, f *flag.FlagSet) string {
	u, flags, _ := strings.Cut(flagUsage(c, f), "\n")
	return u + "\n\n" + strings.TrimSpace(c.about) + "\n" + flags
}

// flagUsage is the usage line and the flags.
func flagUsage(c *command, f *flag.FlagSet) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Usage: skald %s %s\n", c.name, c.args)
	header, more := false, false
	f.VisitAll(func(x *flag.Flag) {
		if _, ok := x.Value.(*settingFlag); ok {
			more = true
			return
		}
		if !header {
			b.WriteString("\nFlags:\n")
			header = true
		}
		dash := "--"
		if len(x.Name) == 1 {
			dash = "-"
		}
		// The argument's name stands last in the usage string.
		text, arg, _ := strings.Cut(strings.TrimSuffix(x.Usage, "`"), " `")
		left := dash + x.Name
		if arg != "" {
			left += " " + arg
		}
		fmt.Fprintf(&b, "  %-24s %s", left, text)
		if x.DefValue != "" && x.DefValue != "false" && x.DefValue != "0" && x.DefValue != "-1" {
			fmt.Fprintf(&b, " (default %s)", x.DefValue)
		}
		b.WriteByte('\n')
	})
	if more {
		b.WriteString("\n`skald help connection` lists the flags and variables of TLS, SASL and time-outs.\n")
	}
	return b.String()
}

// list is a flag that may be given several times, or with commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	for _, x := range strings.Split(s, ",") {
		if x = strings.TrimSpace(x); x == "" {
			return errors.New("it is empty")
		}
		*l = append(*l, x)
	}
	return nil
}

// output is the flag -o.
type output string

func (o *output) String() string { return string(*o) }

func (o *output) Set(s string) error {
	if s != "text" && s != "json" {
		return errors.New("text or json")
	}
	*o = output(s)
	return nil
}

func outputFlag(f *flag.FlagSet) *output {
	o := output("text")
	f.Var(&o, "o", "how results are printed: text or json `FORMAT`")
	return &o
}
