package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

const root = "../.."

// TestGenerate_FilesAreUpToDate fails when a type was changed and `make gen` was not run.
func TestGenerate_FilesAreUpToDate(t *testing.T) {
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not up to date: run make gen", name)
		}
	}
}

// TestAsyncAPI_IsComplete checks that every reference has a target, that messages and
// operations are described, and that the addresses are those of the streams.
func TestAsyncAPI_IsComplete(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(root, "contracts/asyncapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(string(data), -1) {
		at := any(doc)
		for key := range strings.SplitSeq(ref[1], "/") {
			m, _ := at.(map[string]any)
			if at = m[key]; at == nil {
				t.Errorf("#/%s does not exist", ref[1])
				break
			}
		}
	}
	components := child(doc, "components")
	for name, m := range child(components, "messages") {
		message, _ := m.(node)
		for _, field := range []string{"examples", "title"} {
			if message[field] == nil {
				t.Errorf("message %s has no %s", name, field)
			}
		}
	}
	for name, o := range child(doc, "operations") {
		if operation, _ := o.(node); operation["description"] == nil {
			t.Errorf("operation %s has no description", name)
		}
	}
	channels, _ := doc["channels"].(map[string]any)
	for _, s := range streams.Streams(streams.Config{}) {
		family := strings.TrimSuffix(s.Subjects[0], ">")
		c, _ := channels[strings.ToLower(s.Name)].(map[string]any)
		address, _ := c["address"].(string)
		if !strings.HasPrefix(address, family) {
			t.Errorf("stream %s has %s, its channel %q", s.Name, s.Subjects[0], address)
		}
	}
}
