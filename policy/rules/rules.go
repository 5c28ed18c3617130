// SPDX-License-Identifier: Apache-2.0

package rules

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"unicode/utf8"

	"github.com/cedar-policy/cedar-go"
	cedarast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Schema is the text that rules are validated against. Bundles carry a copy, so
// that other programs can validate them; it must be this one.
//
//go:embed schema.cedarschema
var Schema []byte

// ErrSchema says that rules were written for another version of this program.
var ErrSchema = errors.New("rules: the schema is not the one of this version: write the bundle anew with the schema that this version prints")

// Rules are compiled. They do not change and are safe for concurrent use.
type Rules struct {
	set       cedar.PolicyMap
	validator *validate.Validator
	names     []string
}

// base is the only permit: what no rule forbids stays allowed.
const base = "permit (principal, action, resource);"

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)

// Compile parses rules and validates each against the schema. An empty text is
// no rules.
func Compile(text, schemaText []byte) (*Rules, error) {
	if !bytes.Equal(schemaText, Schema) {
		return nil, ErrSchema
	}
	validator, err := newValidator()
	if err != nil {
		return nil, err
	}
	if err := checkText(text); err != nil {
		return nil, err
	}
	list, err := cedar.NewPolicyListFromBytes("rules.cedar", text)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	if len(list) > MaxRules {
		return nil, fmt.Errorf("rules: %d rules, at most %d are allowed", len(list), MaxRules)
	}
	r := &Rules{set: make(cedar.PolicyMap, len(list)+1), validator: validator}
	for i, p := range list {
		name, err := checkRule(p)
		if err != nil {
			return nil, fmt.Errorf("rules: rule %d, line %d: %w", i+1, p.Position().Line, err)
		}
		if err := validator.Policy(name, (*cedarast.Policy)(p.AST())); err != nil {
			return nil, fmt.Errorf("rules: rule %d, line %d: %w", i+1, p.Position().Line, err)
		}
		if _, twice := r.set[cedar.PolicyID(name)]; twice {
			return nil, fmt.Errorf("rules: two rules are called %q", name)
		}
		r.set[cedar.PolicyID(name)] = p
		r.names = append(r.names, name)
	}
	slices.Sort(r.names)
	var permit cedar.Policy
	if err := permit.UnmarshalCedar([]byte(base)); err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	r.set[""] = &permit // no rule can be called that
	return r, nil
}

// Empty reports whether there are no rules: everything is granted then.
func (r *Rules) Empty() bool { return len(r.names) == 0 }

// Names lists the rules, sorted.
func (r *Rules) Names() []string { return slices.Clone(r.names) }

func newValidator() (*validate.Validator, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar(Schema); err != nil {
		return nil, fmt.Errorf("rules: schema: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("rules: schema: %w", err)
	}
	return validate.New(resolved, validate.WithStrict()), nil
}

// checkText bounds what the parser is given.
func checkText(text []byte) error {
	if len(text) > MaxText {
		return fmt.Errorf("rules: %d bytes, at most %d are allowed", len(text), MaxText)
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return errors.New("rules: not UTF-8 text")
	}
	depth, deepest := 0, 0
	for _, c := range text {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			depth--
		case '!', '-': // prefix operators nest without brackets
			deepest = max(deepest, run(text, c))
		}
		deepest = max(deepest, depth)
	}
	if deepest > maxDepth {
		return fmt.Errorf("rules: nested deeper than %d", maxDepth)
	}
	return nil
}

// run is the longest row of a character, spaces between them not counted.
func run(text []byte, c byte) (longest int) {
	n := 0
	for _, b := range text {
		switch b {
		case c:
			n++
			longest = max(longest, n)
		case ' ', '\t', '\n', '\r':
		default:
			n = 0
		}
	}
	return longest
}

// checkRule returns a rule's name. A rule forbids, and says what it is called.
func checkRule(p *cedar.Policy) (string, error) {
	if p.Effect() != cedar.Forbid {
		return "", errors.New("permit is not allowed: rules only restrict what labels and clearances allow; write forbid … unless { … }")
	}
	name := string(p.Annotations()["id"])
	if len(name) > maxID || !idPattern.MatchString(name) {
		return "", fmt.Errorf("a rule needs a name, @id(\"…\"), of up to %d lower-case letters, digits and hyphens", maxID)
	}
	return name, nil
}
