package kafka

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/skald-io/skald/internal/mutant"
)

// Sources are the places where settings are made. A setting is taken from the first place that makes it, in
// this order: flags, environment, the YAML file, the Java properties, its default.
type Sources struct {
	Flags      map[string]string          // given flags, by name without dashes; read-only
	Getenv     func(name string) string   // nil: no environment; an empty variable is none
	Environ    []string                   // all variables, NAME=value, to find misspelt ones; may be nil
	File       string                     // a YAML file, "": $SKALD_CONFIG, or none
	Properties string                     // a client.properties, "": $SKALD_PROPERTIES, kafka.properties of File, or none
	More       []Setting                  // of the program itself; their values are in Loaded.Values
	Ignore     func(variable string) bool // variables that begin with SKALD_ and are others'
}

// Loaded is what was found.
type Loaded struct {
	Config   Config
	Values   map[string]Value // by key, of every setting that was made
	Warnings []error          // each an *Error
}

// Value is a setting as it was made.
type Value struct {
	Text  Secret // since it may be one
	Place string // "--flag", "$VARIABLE", "file:line"
}

// Names of the two files in which the rest is set.
const (
	keyConfig     = "config"           // flag --config, variable SKALD_CONFIG
	keyProperties = "kafka.properties" // flag --properties, variable SKALD_PROPERTIES, or in the YAML file
)

// DefaultBroker is where Load takes Kafka to be when nothing says it.
const DefaultBroker = "localhost:9092"

const maxConfig = 1 << 20 // bytes of a file

// Load puts a configuration together and validates it. Its error joins an *Error with CodeConfiguration for
// each thing that is wrong, and names the place of each: flag, variable, or file and line.
func Load(s Sources) (Loaded, error) {
	l := loader{out: Loaded{Values: map[string]Value{}}, all: append(Settings(), s.More...)}
	getenv := s.Getenv
	if getenv == nil {
		getenv = func(string) string { return "" }
	}
	for _, x := range l.all {
		if v, ok := s.Flags[x.Flag()]; ok && x.Flag() != "" {
			l.set(x.Key, v, "--"+x.Flag())
		}
	}
	for _, x := range l.all {
		if v := getenv(x.Env()); v != "" {
			l.set(x.Key, v, "$"+x.Env())
		}
	}
	l.unknownVariables(s)
	file, props := s.File, s.Properties
	if file == "" {
		file = getenv("SKALD_CONFIG")
	}
	if props == "" {
		props = getenv("SKALD_PROPERTIES")
	}
	if file != "" {
		l.yaml(file, &props)
	}
	tls := slices.ContainsFunc(slices.Collect(maps.Keys(l.out.Values)), func(key string) bool { return strings.HasPrefix(key, "kafka.tls.") })
	if _, set := l.out.Values["kafka.tls.enabled"]; !set && tls {
		l.out.Config.TLS.Enabled = true
	}
	if props != "" {
		l.java(props, tls)
	}
	c := &l.out.Config
	c.places = map[string]string{}
	for _, x := range l.all {
		v, set := l.out.Values[x.Key]
		if !set || x.Set == nil {
			continue
		}
		c.places[x.Key] = v.Place
		if err := x.Set(c, string(v.Text)); err != nil {
			if x.Secret {
				err = errors.New("its value is not acceptable")
			}
			l.bad(v.Place, x.Key+": "+err.Error(), "")
		}
	}
	if len(c.Brokers) == 0 {
		c.Brokers = []string{DefaultBroker}
	}
	if len(l.errs) == 0 { // else it would complain of what could not be read
		if err := c.Validate(); err != nil {
			l.errs = append(l.errs, err)
		}
	}
	l.out.Warnings = append(l.out.Warnings, c.Warnings()...)
	return l.out, errors.Join(l.errs...)
}

type loader struct {
	out  Loaded
	all  []Setting
	errs []error
}

// set keeps a value unless a place that goes before has made the setting.
func (l *loader) set(key, value, place string) {
	_, set := l.out.Values[key]
	if set && !mutant.On("kafka-file-over-flags") {
		return
	}
	l.out.Values[key] = Value{Secret(value), place}
}

func (l *loader) bad(place, detail, cure string) {
	l.errs = append(l.errs, &Error{Code: CodeConfiguration, Detail: place + ": " + detail, Cure: cure})
}

func (l *loader) warn(place, detail, cure string) {
	l.out.Warnings = append(l.out.Warnings, &Error{Code: CodeConfiguration, Detail: place + ": " + detail, Cure: cure})
}

func (l *loader) setting(key string) (Setting, bool) {
	i := slices.IndexFunc(l.all, func(s Setting) bool { return s.Key == key })
	if i < 0 {
		return Setting{}, false
	}
	return l.all[i], true
}

func didYouMean(name string, known []string) string {
	if n := nearest(name, known); n != "" {
		return "did you mean " + n + "?"
	}
	return "docs/configuration.md lists what there is"
}

func (l *loader) unknownVariables(s Sources) {
	known := []string{"SKALD_CONFIG", "SKALD_PROPERTIES"}
	for _, x := range l.all {
		known = append(known, x.Env())
	}
	for _, kv := range s.Environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, "SKALD_") && !slices.Contains(known, name) && (s.Ignore == nil || !s.Ignore(name)) {
			l.warn("$"+name, "no setting has this variable", didYouMean(name, known))
		}
	}
}

// yaml reads the strict file: every key known and there once, no tags, anchors or merges, one document.
func (l *loader) yaml(file string, props *string) {
	data, err := readBounded(file, maxConfig)
	if err != nil {
		l.bad(file, err.Error(), "name a file that this process may read")
		return
	}
	values, errs := l.parseYAML(file, data)
	l.errs = append(l.errs, errs...)
	for _, v := range values {
		if v.key == keyProperties {
			if *props == "" {
				*props = v.value
			}
			continue
		}
		l.set(v.key, v.value, v.place)
	}
}

type yamlValue struct{ key, value, place string }

func (l *loader) parseYAML(file string, data []byte) (values []yamlValue, errs []error) {
	p := yamlParser{l: l, file: file}
	defer func() {
		if r := recover(); r != nil { // the parser is others' and the file is anybody's
			values, errs = nil, []error{&Error{Code: CodeConfiguration, Detail: file + ": it is no YAML"}}
		}
	}()
	d := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, []error{&Error{Code: CodeConfiguration, Detail: fmt.Sprintf("%s: it is no YAML: %v", file, err), Cure: "indent by spaces, and quote what is not plain"}}
	}
	for _, n := range doc.Content {
		p.node("", n)
	}
	var more yaml.Node
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		p.bad(&more, "a second document", "keep one")
	}
	return p.values, p.errs
}

type yamlParser struct {
	l      *loader
	file   string
	values []yamlValue
	errs   []error
}

func (p *yamlParser) place(n *yaml.Node) string { return p.file + ":" + strconv.Itoa(n.Line) }

func (p *yamlParser) bad(n *yaml.Node, detail, cure string) {
	p.errs = append(p.errs, &Error{Code: CodeConfiguration, Detail: p.place(n) + ": " + detail, Cure: cure})
}

func (p *yamlParser) node(prefix string, n *yaml.Node) {
	plain := func(n *yaml.Node) bool {
		if n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
			p.bad(n, "anchors, aliases and tags are not for this file", "write the value out")
			return false
		}
		return true
	}
	if !plain(n) {
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // a level with nothing in it
	}
	if n.Kind != yaml.MappingNode {
		what := strings.TrimSuffix(prefix, ".")
		if what == "" {
			what = "the file"
		}
		p.bad(n, what+" has keys below it, and no value", "write it as `key: value` lines")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !plain(k) || !plain(v) {
			continue
		}
		if k.Kind != yaml.ScalarNode {
			p.bad(k, "a key is not plain text", "")
			continue
		}
		key := prefix + k.Value
		if seen[key] && !mutant.On("kafka-yaml-key-twice") {
			p.bad(k, fmt.Sprintf("%.60s stands twice", key), "keep one")
			continue
		}
		seen[key] = true
		s, known := p.l.setting(key)
		if key == keyProperties {
			s, known = Setting{Key: key}, true
		}
		switch {
		case known:
			p.value(s, k, v)
		case p.level(key + "."):
			p.node(key+".", v)
		default:
			var names []string
			for _, x := range p.l.all {
				names = append(names, x.Key)
			}
			p.bad(k, fmt.Sprintf("unknown key %.100s", key), didYouMean(key, append(names, keyProperties)))
		}
	}
}

// level says whether keys begin with the prefix.
func (p *yamlParser) level(prefix string) bool {
	return slices.ContainsFunc(p.l.all, func(s Setting) bool { return strings.HasPrefix(s.Key, prefix) })
}

func (p *yamlParser) value(s Setting, k, v *yaml.Node) {
	switch {
	case v.Kind == yaml.ScalarNode && v.Tag == "!!null":
		p.bad(k, s.Key+" has no value", "give it one, or leave the line out")
	case v.Kind == yaml.ScalarNode:
		p.values = append(p.values, yamlValue{s.Key, v.Value, p.place(k)})
	case v.Kind == yaml.SequenceNode && s.List:
		var list []string
		for _, e := range v.Content {
			if e.Kind != yaml.ScalarNode || strings.Contains(e.Value, ",") || e.Style&yaml.TaggedStyle != 0 || e.Anchor != "" {
				p.bad(e, "an element of "+s.Key+" is not plain text without commas", "")
				return
			}
			list = append(list, e.Value)
		}
		p.values = append(p.values, yamlValue{s.Key, strings.Join(list, ","), p.place(k)})
	default:
		p.bad(k, s.Key+" is one value, not several", "write it on one line")
	}
}
