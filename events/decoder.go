package events

// DecodeRecord reads an encoded record. The result aliases b. Damaged bytes give ErrMalformed, a format
// above Format gives a *NewerFormatError.
func DecodeRecord(b []byte) (*Record, error) {
	r := &Record{}
	if err := r.decode(b, nil); err != nil {
		return nil, err
	}
	return r, nil
}

// Decoder decodes records one after the other into memory that it uses again: for those who read a whole journal.
// It takes and refuses the same bytes as DecodeRecord. The zero value is ready. It is not safe for concurrent use.
type Decoder struct {
	record   Record
	decision Decision
	entries  [][]byte
	strings  [internSlots]string
}

// Decode reads an encoded record. The result, and every list in it, is valid until the next call; byte slices
// alias b, and strings are the caller's for good. Errors are those of DecodeRecord.
func (d *Decoder) Decode(b []byte) (*Record, error) {
	d.record = Record{}
	d.entries = d.entries[:0]
	if err := d.record.decode(b, d); err != nil {
		return nil, err
	}
	return &d.record, nil
}

// Entries are the bytes of the last record's entries as they stand in it. A history row has the same: whoever appended
// the record wrote both by Entry.Encode. They are valid as long as the record.
func (d *Decoder) Entries() [][]byte { return d.entries }

// decision empties the record's decision to be read into, with the memory of the last one when there is a decoder.
func (f *reader) decision(r *Record) *Decision {
	if f.kept == nil {
		return fresh(&r.Decision)
	}
	d := &f.kept.decision
	if max(cap(d.Entries), cap(d.Rows), cap(d.Emits)) > maxKept {
		*d, f.kept.entries = Decision{}, nil // one huge record is no reason to hold that much from then on
	}
	*d = Decision{Entries: d.Entries[:0], Rows: d.Rows[:0], Emits: d.Emits[:0]}
	f.kept.entries = f.kept.entries[:0]
	r.Decision = d
	return d
}

const (
	internSlots = 256
	maxInterned = 64   // bytes
	maxKept     = 1024 // elements of a list
)

// string gives b as a string. Topics, steps and types are few and come again and again: they are allocated
// once. Where two share a slot, the later one takes it.
func (d *Decoder) string(b []byte) string {
	n := len(b)
	if n == 0 {
		return ""
	}
	if n > maxInterned {
		return string(b)
	}
	h := uint32(n)
	for _, c := range b[max(n-8, 0):] { // names differ at their ends
		h = (h ^ uint32(c)) * 16777619
	}
	slot := &d.strings[(h^h>>16)%internSlots]
	if *slot != string(b) {
		*slot = string(b)
	}
	return *slot
}
