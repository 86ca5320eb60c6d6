// Package onnxruntime runs ONNX nets with Microsoft's ONNX Runtime.
//
// The library is looked up and loaded at run time ([Find], [Open]). Building needs
// neither the library nor its header, and on a machine without it the error says how to
// install it. Versions from 1.21 on are supported. docs/adr/0008 says why no existing Go
// package is used.
package onnxruntime

/*
#cgo LDFLAGS: -ldl
#include "capi.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"
)

// minVersion is the first version of the library that supports API_VERSION.
const minVersion = "1.21"

// Library is the loaded ONNX Runtime. It is safe for concurrent use by multiple
// goroutines, and stays loaded until the process ends.
type Library struct {
	path      string
	version   string
	providers []string
	api       *C.OrtApi
	env       *C.OrtEnv
	memory    *C.OrtMemoryInfo
	allocator *C.OrtAllocator
}

// Open loads the library at path. Opening the same path again does not load it a second
// time.
func Open(path string) (*Library, error) {
	cpath := C.CString(path)
	defer C.free(unsafe.Pointer(cpath))
	var reason *C.char
	base := C.open_library(cpath, &reason)
	if base == nil {
		defer C.free(unsafe.Pointer(reason))
		return nil, fmt.Errorf("open ONNX Runtime: %s", C.GoString(reason))
	}
	l := &Library{path: path, version: C.GoString(C.base_version(base)), api: C.base_api(base)}
	if l.api == nil {
		return nil, fmt.Errorf("open ONNX Runtime: %s is version %s; version %s or newer is needed",
			path, l.version, minVersion)
	}
	if err := l.init(); err != nil {
		return nil, fmt.Errorf("open ONNX Runtime: start %s, version %s: %w", path, l.version, err)
	}
	return l, nil
}

// init creates what all nets share.
func (l *Library) init() error {
	id := C.CString("sightmesh")
	defer C.free(unsafe.Pointer(id))
	// The library has one environment per process and counts references to it.
	if err := l.error(C.create_env(l.api, id, &l.env)); err != nil {
		return err
	}
	if err := l.error(C.cpu_memory(l.api, &l.memory)); err != nil {
		return err
	}
	if err := l.error(C.default_allocator(l.api, &l.allocator)); err != nil {
		return err
	}
	var names **C.char
	var n C.int
	if err := l.error(C.available_providers(l.api, &names, &n)); err != nil {
		return err
	}
	defer C.release_providers(l.api, names, n)
	for _, name := range unsafe.Slice(names, n) {
		l.providers = append(l.providers, C.GoString(name))
	}
	return nil
}

// Path returns the path that the library was loaded from.
func (l *Library) Path() string { return l.path }

// Version returns the version of the library, such as "1.28.2".
func (l *Library) Version() string { return l.version }

// Providers returns the names of the execution providers that the library was
// built with, such as "CPUExecutionProvider".
func (l *Library) Providers() []string { return slices.Clone(l.providers) }

// error returns the message of a status as an error, or nil for success. It frees the
// status.
func (l *Library) error(s *C.OrtStatus) error {
	if s == nil {
		return nil
	}
	defer C.release_status(l.api, s)
	return errors.New(strings.TrimSpace(C.GoString(C.status_message(l.api, s))))
}
