package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxPatchDepth bounds how deep a patch may be nested: merging looks at each level's bytes once more.
const maxPatchDepth = 64

// mergePatch applies a JSON merge patch (RFC 7396). What the patch does not name stays, its numbers
// to the last digit; members come out in the order of their names.
func mergePatch(target, patch []byte) ([]byte, error) {
	if !utf8.Valid(patch) {
		return nil, errors.New("the patch is not UTF-8")
	}
	if !json.Valid(patch) {
		return nil, errors.New("the patch is no JSON")
	}
	if !json.Valid(target) {
		return nil, errors.New("the saga's data are no JSON")
	}
	return merge(target, patch, 0)
}

func merge(target, patch []byte, depth int) ([]byte, error) {
	if depth > maxPatchDepth {
		return nil, fmt.Errorf("the patch is nested deeper than %d", maxPatchDepth)
	}
	if !isObject(patch) {
		return patch, nil
	}
	into := map[string]json.RawMessage{}
	if isObject(target) {
		if err := json.Unmarshal(target, &into); err != nil {
			return nil, err
		}
	}
	var changes map[string]json.RawMessage
	if err := json.Unmarshal(patch, &changes); err != nil {
		return nil, err
	}
	for name, change := range changes { // order: each member is its own, and the errors are alike
		if string(bytes.TrimSpace(change)) == "null" {
			delete(into, name)
			continue
		}
		merged, err := merge(into[name], change, depth+1)
		if err != nil {
			return nil, err
		}
		into[name] = merged
	}
	return json.Marshal(into)
}

func isObject(raw []byte) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) > 0 && raw[0] == '{'
}
