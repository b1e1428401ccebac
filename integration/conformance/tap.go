// Package tap is what the validation needs of github.com/mndrix/tap-go, which
// Debian doesn't have: it writes the Test Anything Protocol, version 13.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T is one stream of results. The tests set Writer when it isn't for standard output.
type T struct {
	Writer    io.Writer

	next int
	todo bool
}

// New begins a stream on standard output.
func New() *T { return &T{next: 1} }

func (t *T) printf(format string, args ...interface{}) {
	if t.Writer == nil {
		t.Writer = os.Stdout
	}
	fmt.Fprintf(t.Writer, format, args...)
}

// Header opens the stream; a count of 0 leaves the plan for its end.
func (t *T) Header(count int) {
	t.printf("TAP version 13\n")
	if count > 0 {
		t.printf("1..%d\n", count)
	}
}

// AutoPlan says at the end how many tests there were.
func (t *T) AutoPlan() { t.printf("1..%d\n", t.next-1) }

// Ok is one assertion.
func (t *T) Ok(passed bool, description string) {
	result := "ok"
	if !passed {
		result = "not ok"
	}
	directive := ""
	if t.todo {
		directive = " # TODO"
	}
	t.printf("%s %d%s - %s\n", result, t.next, directive, description)
	t.next++
}

// Fail is an assertion that doesn't hold, Pass one that does.
func (t *T) Fail(description string) { t.Ok(false, description) }
func (t *T) Pass(description string) { t.Ok(true, description) }

// Skip counts assertions that were left out, with the reason.
func (t *T) Skip(count int, reason string) {
	for i := 0; i < count; i++ {
		t.printf("ok %d # SKIP %s\n", t.next, reason)
		t.next++
	}
}

// Todo is the same stream, whose assertions may fail.
func (t *T) Todo() *T {
	copied := *t
	copied.todo = true
	return &copied
}

// Diagnostic writes a comment.
func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(strings.TrimRight(message, "\n"), "\n") {
		t.printf("# %s\n", line)
	}
}

// Diagnosticf writes a comment by a format.
func (t *T) Diagnosticf(format string, args ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, args...))
}

// YAML writes data about the assertion before it. JSON is YAML.
func (t *T) YAML(data interface{}) error {
	text, err := json.MarshalIndent(data, "  ", "  ")
	if err != nil {
		return err
	}
	t.printf("  ---\n  %s\n  ...\n", text)
	return nil
}
