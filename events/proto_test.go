package events

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// readProto reads journal.proto.
func readProto(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	return readProtoFile(t, "journal.proto")
}

// readProtoFile reads the subset of the language that our descriptions are written in.
func readProtoFile(t testing.TB, name string) protoreflect.FileDescriptor {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	scalars := map[string]descriptorpb.FieldDescriptorProto_Type{
		"bool": descriptorpb.FieldDescriptorProto_TYPE_BOOL, "bytes": descriptorpb.FieldDescriptorProto_TYPE_BYTES,
		"string": descriptorpb.FieldDescriptorProto_TYPE_STRING, "int32": descriptorpb.FieldDescriptorProto_TYPE_INT32,
		"int64": descriptorpb.FieldDescriptorProto_TYPE_INT64, "uint32": descriptorpb.FieldDescriptorProto_TYPE_UINT32,
		"uint64": descriptorpb.FieldDescriptorProto_TYPE_UINT64,
	}
	block := regexp.MustCompile(`^(message|enum) (\w+) \{$`)
	field := regexp.MustCompile(`^(repeated )?(\w+) (\w+) = (\d+);$`)
	value := regexp.MustCompile(`^(\w+) = (\d+);$`)
	file := &descriptorpb.FileDescriptorProto{Name: proto.String(name)}
	var message *descriptorpb.DescriptorProto
	var enum *descriptorpb.EnumDescriptorProto
	enums := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^enum (\w+)`).FindAllStringSubmatch(string(text), -1) {
		enums[m[1]] = true
	}
	for i, line := range strings.Split(string(text), "\n") {
		line, _, _ = strings.Cut(line, "//")
		line = strings.TrimSpace(line)
		number := func(s string) *int32 { n, _ := strconv.Atoi(s); return proto.Int32(int32(n)) }
		switch {
		case line == "":
		case line == "}":
			message, enum = nil, nil
		case line == `syntax = "proto3";`:
			file.Syntax = proto.String("proto3")
		case strings.HasPrefix(line, "package "):
			file.Package = proto.String(strings.Trim(line[8:], "; "))
		case block.MatchString(line):
			m := block.FindStringSubmatch(line)
			if m[1] == "enum" {
				enum = &descriptorpb.EnumDescriptorProto{Name: proto.String(m[2])}
				file.EnumType = append(file.EnumType, enum)
			} else {
				message = &descriptorpb.DescriptorProto{Name: proto.String(m[2])}
				file.MessageType = append(file.MessageType, message)
			}
		case enum != nil && value.MatchString(line):
			m := value.FindStringSubmatch(line)
			enum.Value = append(enum.Value, &descriptorpb.EnumValueDescriptorProto{Name: proto.String(m[1]), Number: number(m[2])})
		case message != nil && field.MatchString(line):
			m := field.FindStringSubmatch(line)
			f := &descriptorpb.FieldDescriptorProto{Name: proto.String(m[3]), Number: number(m[4]), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
			if m[1] != "" {
				f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
			}
			if typ, ok := scalars[m[2]]; ok {
				f.Type = typ.Enum()
			} else {
				f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), proto.String("."+file.GetPackage()+"."+m[2])
				if enums[m[2]] {
					f.Type = descriptorpb.FieldDescriptorProto_TYPE_ENUM.Enum()
				}
			}
			message.Field = append(message.Field, f)
		default:
			t.Fatalf("%s:%d: the test does not know %q", name, i+1, line)
		}
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return fd
}

// messageOf tells which message of journal.proto a golden file holds, and where it begins.
func messageOf(fd protoreflect.FileDescriptor, name string) (protoreflect.MessageDescriptor, int) {
	rows := map[string]protoreflect.Name{"head": "Head", "node": "NodeState", "entry": "Entry", "queued": "Queued", "answer": "Answer",
		"key": "KeyState", "correlation": "Correlation", "event": "KeptEvent", "message": "InboxMessage"}
	if row := rows[kindOf(name)]; row != "" {
		return fd.Messages().ByName(row), 0
	}
	return fd.Messages().ByName("Record"), 1
}

func parseDynamic(t testing.TB, md protoreflect.MessageDescriptor, b []byte) *dynamicpb.Message {
	t.Helper()
	m := dynamicpb.NewMessage(md)
	if err := proto.Unmarshal(b, m); err != nil {
		t.Fatalf("%s: %v", md.Name(), err)
	}
	return m
}

func TestJournalProtoReadsTheGoldenFilesAsTheCodecDoes(t *testing.T) {
	fd := readProto(t)
	for name, b := range readGolden(t) {
		v, err := decodeAs(name, b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		md, from := messageOf(fd, name)
		want := printed(reflect.ValueOf(v))
		if got := printedDynamic(parseDynamic(t, md, b[from:])); got != want {
			t.Errorf("%s by journal.proto is\n%s\nand by the codec\n%s", name, got, want)
		}
	}
}

func TestEveryFieldOfJournalProtoStandsInAGoldenFile(t *testing.T) {
	fd := readProto(t)
	wantEveryField(t, fd, "golden file", func(walk func(protoreflect.Message)) {
		for name, b := range readGolden(t) {
			md, from := messageOf(fd, name)
			walk(parseDynamic(t, md, b[from:]))
		}
	})
}

// wantEveryField holds the messages that samples are against a file of descriptions: neither has a field that the
// other has not.
func wantEveryField(t *testing.T, fd protoreflect.FileDescriptor, sample string, messages func(walk func(protoreflect.Message))) {
	t.Helper()
	seen := map[protoreflect.FullName]bool{}
	var walk func(m protoreflect.Message)
	walk = func(m protoreflect.Message) {
		if len(m.GetUnknown()) > 0 {
			t.Errorf("%s has fields that %s does not: %x", m.Descriptor().Name(), fd.Path(), m.GetUnknown())
		}
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			seen[f.FullName()] = true
			if f.Message() != nil && f.IsList() {
				for i := range v.List().Len() {
					walk(v.List().Get(i).Message())
				}
			} else if f.Message() != nil {
				walk(v.Message())
			}
			return true
		})
	}
	messages(walk)
	for i := range fd.Messages().Len() {
		fields := fd.Messages().Get(i).Fields()
		for j := range fields.Len() {
			if f := fields.Get(j); !seen[f.FullName()] {
				t.Errorf("no %s sets %s", sample, f.FullName())
			}
		}
	}
}

// addUnknown rewrites the message b with a field of number 1000 at the end of its nth message, counted
// depth first; n is negative afterwards if there is one.
func addUnknown(md protoreflect.MessageDescriptor, b []byte, n *int) []byte {
	add := *n == 0
	*n--
	var out []byte
	for len(b) > 0 {
		num, typ, k := protowire.ConsumeTag(b)
		size := protowire.ConsumeFieldValue(num, typ, b[k:])
		if f := md.Fields().ByNumber(num); f != nil && f.Message() != nil && *n >= 0 {
			inner, _ := protowire.ConsumeBytes(b[k:])
			out = protowire.AppendBytes(append(out, b[:k]...), addUnknown(f.Message(), inner, n))
		} else {
			out = append(out, b[:k+size]...)
		}
		b = b[k+size:]
	}
	if add {
		out = protowire.AppendString(protowire.AppendTag(out, 1000, protowire.BytesType), "of a newer build")
		out = protowire.AppendVarint(protowire.AppendTag(out, 1001, protowire.VarintType), 1<<40)
		out = protowire.AppendFixed64(protowire.AppendTag(out, 1002, protowire.Fixed64Type), 7)
		out = protowire.AppendFixed32(protowire.AppendTag(out, 1003, protowire.Fixed32Type), 7)
	}
	return out
}

func TestUnknownFieldsSurviveAtEveryLevel(t *testing.T) {
	fd := readProto(t)
	for name, b := range readGolden(t) {
		md, from := messageOf(fd, name)
		for at := 0; ; at++ {
			n := at
			newer := append(slices.Clone(b[:from]), addUnknown(md, b[from:], &n)...)
			if n >= 0 {
				if at == 0 {
					t.Errorf("%s: no message found", name)
				}
				break
			}
			v, err := decodeAs(name, newer)
			if err != nil {
				t.Errorf("%s, message %d: %v", name, at, err)
				continue
			}
			if again := v.Encode(nil); !bytes.Equal(again, newer) {
				t.Errorf("%s, message %d: written again as\n%x\nnot as\n%x", name, at, again, newer)
			}
		}
	}
}

// printed and printedDynamic print a message alike, from the Go value and from its description: fields in
// order of name, enums as numbers, what is zero or empty left out.
func printed(v reflect.Value) string {
	var lines block
	lines.goValue(v.Elem(), nil)
	return lines.String()
}

func printedDynamic(m protoreflect.Message) string {
	var lines block
	lines.message(m)
	return lines.String()
}

type line struct{ name, text string }

type block []line

func (b block) String() string {
	slices.SortStableFunc(b, func(x, y line) int { return strings.Compare(x.name, y.name) })
	var s strings.Builder
	for _, l := range b {
		s.WriteString(l.name + ": " + l.text + "\n")
	}
	return s.String()
}

func (b *block) bytes(name string, v []byte) {
	if len(bytes.Trim(v, "\x00")) != 0 {
		*b = append(*b, line{name, strconv.Quote(string(v))})
	}
}

func (b *block) sub(name string, inner block, always bool) {
	if len(inner) > 0 || always {
		*b = append(*b, line{name, "{\n\t" + strings.ReplaceAll(strings.TrimSuffix(inner.String(), "\n"), "\n", "\n\t") + "\n}"})
	}
}

func snake(s string) string {
	var out strings.Builder
	for i, r := range s {
		if unicode.IsUpper(r) && i > 0 && !unicode.IsUpper(rune(s[i-1])) {
			out.WriteByte('_')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

func (b *block) goValue(v reflect.Value, prefix []string) {
	for i := range v.NumField() {
		name := strings.Join(append(slices.Clone(prefix), snake(v.Type().Field(i).Name)), "_")
		f := v.Field(i)
		if name == "format" {
			continue // the byte before the message
		}
		switch x := f.Interface().(type) {
		case RowRef:
			b.goValue(f, map[string][]string{"row": {"row"}}[name]) // of a RowChange it has no prefix
			continue
		case []byte:
			b.bytes(name, x)
			continue
		case []Span:
			at := v.FieldByName("Low").Int()
			for _, s := range x {
				*b = append(*b, line{name, fmt.Sprint(s.From - at)}, line{name, fmt.Sprint(s.To - s.From)})
				at = s.To
			}
			continue
		}
		var inner block
		switch {
		case f.Kind() == reflect.Array:
			x := make([]byte, f.Len())
			reflect.Copy(reflect.ValueOf(x), f)
			b.bytes(name, x)
		case f.Kind() == reflect.Slice:
			for j := range f.Len() {
				var inner block
				inner.goValue(f.Index(j), nil)
				b.sub(name, inner, true)
			}
		case f.Kind() == reflect.Pointer && !f.IsNil():
			inner.goValue(f.Elem(), nil)
			b.sub(name, inner, false)
		case f.Kind() == reflect.Struct:
			inner.goValue(f, nil)
			b.sub(name, inner, false)
		case f.IsZero():
		case f.Kind() == reflect.String:
			*b = append(*b, line{name, strconv.Quote(f.String())})
		case f.CanInt():
			*b = append(*b, line{name, fmt.Sprint(f.Int())})
		case f.CanUint():
			*b = append(*b, line{name, fmt.Sprint(f.Uint())})
		default:
			*b = append(*b, line{name, fmt.Sprint(f.Interface())})
		}
	}
}

func (b *block) message(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		one := func(v protoreflect.Value, always bool) {
			switch f.Kind() {
			case protoreflect.MessageKind:
				var inner block
				inner.message(v.Message())
				b.sub(string(f.Name()), inner, always)
			case protoreflect.BytesKind:
				b.bytes(string(f.Name()), v.Bytes())
			case protoreflect.StringKind:
				*b = append(*b, line{string(f.Name()), strconv.Quote(v.String())})
			case protoreflect.EnumKind:
				*b = append(*b, line{string(f.Name()), fmt.Sprint(v.Enum())})
			default:
				*b = append(*b, line{string(f.Name()), fmt.Sprint(v.Interface())})
			}
		}
		if f.IsList() {
			for i := range v.List().Len() {
				one(v.List().Get(i), true)
			}
		} else {
			one(v, false)
		}
		return true
	})
	if u := m.GetUnknown(); len(u) > 0 {
		b.bytes("unknown", u)
	}
}
