// Package metricdefs reads the metrics of the services from their source code, because /metrics lacks vectors that have
// no sample yet.
package metricdefs

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
)

// Metric is the definition of a Prometheus metric.
type Metric struct {
	Name string
	// Type is counter, gauge or histogram.
	Type   string
	Help   string
	Labels []string
}

// ReadFolder returns the metrics that the Go files of a folder define, tests excluded. A
// definition whose name, help or labels are not literals is an error.
func ReadFolder(dir string) (all []Metric, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, fmt.Errorf("parse: %w", err)
		}
		var errs []error
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			m, defines, err := definition(call)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("%s: %w", path, err))
			case defines:
				all = append(all, m)
			}
			return true
		})
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// definition returns the metric that a call such as NewCounterVec(prometheus.CounterOpts{…},
// []string{…}) defines. defines is false for any other call.
func definition(call *ast.CallExpr) (m Metric, defines bool, err error) {
	if len(call.Args) == 0 {
		return m, false, nil
	}
	opts, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return m, false, nil
	}
	optsType, ok := opts.Type.(*ast.SelectorExpr)
	if !ok {
		return m, false, nil
	}
	switch optsType.Sel.Name {
	case "CounterOpts", "GaugeOpts", "HistogramOpts":
		m.Type = strings.ToLower(strings.TrimSuffix(optsType.Sel.Name, "Opts"))
	default:
		return m, false, nil
	}
	for _, e := range opts.Elts {
		field, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return m, true, errors.New("a metric has options without field names")
		}
		switch key, _ := field.Key.(*ast.Ident); {
		case key == nil:
		case key.Name == "Name":
			m.Name, err = literal(field.Value)
		case key.Name == "Help":
			m.Help, err = literal(field.Value)
		}
		if err != nil {
			return m, true, err
		}
	}
	if m.Name == "" || m.Help == "" {
		return m, true, fmt.Errorf("a metric has no name or no help: name %q, help %q", m.Name, m.Help)
	}
	if len(call.Args) > 1 {
		labels, ok := call.Args[1].(*ast.CompositeLit)
		if !ok {
			return m, true, fmt.Errorf("metric %s: the labels are not a literal", m.Name)
		}
		for _, e := range labels.Elts {
			label, err := literal(e)
			if err != nil {
				return m, true, fmt.Errorf("metric %s: %w", m.Name, err)
			}
			m.Labels = append(m.Labels, label)
		}
	}
	return m, true, nil
}

// literal returns the value of a string literal, or of a concatenation of literals.
func literal(e ast.Expr) (string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", e.Value, err)
		}
		return s, nil
	case *ast.BinaryExpr:
		left, err := literal(e.X)
		if err != nil {
			return "", err
		}
		right, err := literal(e.Y)
		return left + right, err
	}
	return "", fmt.Errorf("a name, help or label is not a literal: %T", e)
}
