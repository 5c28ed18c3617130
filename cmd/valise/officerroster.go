// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

const (
	// maxRosterFile bounds a roster in CSV: 100,000 people with 100 octets each.
	maxRosterFile = 16 << 20
	// maxRosterChanges bounds what one import signs: each takes a PIN.
	maxRosterChanges = 1000
)

// OfficerRosterCmd is `valise officer roster`.
type OfficerRosterCmd struct {
	List   OfficerRosterListCmd   `cmd:"" help:"List people."`
	Set    OfficerRosterSetCmd    `cmd:"" help:"Put a person on the roster, or change who they are and what they may see."`
	Import OfficerRosterImportCmd `cmd:"" help:"Do the same for many, from CSV with the header address,name,unit,clearance."`
	Remove OfficerRosterRemoveCmd `cmd:"" help:"Take a person off the roster, with every device."`
}

// OfficerRosterListCmd is `valise officer roster list`.
type OfficerRosterListCmd struct{ officerFlags }

// Run lists people as CSV, in the form that import takes, or as JSON.
func (cmd *OfficerRosterListCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		var text bytes.Buffer
		w := csv.NewWriter(&text)
		if err := w.Write(append(slices.Clone(rosterColumns), "state")); err != nil {
			return err
		}
		err := b.desk.Roster(ctx, func(p *call.Person) error {
			if e.json {
				return e.print(p)
			}
			c := clearanceText(p.Clearance)
			if c == "none" {
				c = ""
			}
			return w.Write([]string{p.Address.String(), line(p.Name), line(p.Unit), line(c), line(p.State)})
		})
		if err != nil || e.json {
			return err
		}
		w.Flush()
		return errors.Join(w.Error(), e.say("%s", strings.TrimSuffix(text.String(), "\n")))
	})
}

var rosterColumns = []string{"address", "name", "unit", "clearance"}

// OfficerRosterSetCmd is `valise officer roster set`.
type OfficerRosterSetCmd struct {
	signFlags
	Address   string  `arg:"" help:"Whose line: name@domain."`
	Name      *string `help:"The person's name. What is not given stays."`
	Unit      *string `help:"The unit."`
	Clearance *string `placeholder:"POLICY:CLASS+…" help:"What they may see; empty for none."`
}

// Run signs one line of the roster.
func (cmd *OfficerRosterSetCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		now, err := b.desk.Person(ctx, a)
		if err != nil {
			return err
		}
		body, err := rosterBody(a, &now)
		if err != nil {
			return err
		}
		if cmd.Name != nil {
			body.Name = *cmd.Name
		}
		if cmd.Unit != nil {
			body.Unit = *cmd.Unit
		}
		if cmd.Clearance != nil {
			if body.Clearance, err = identity.ParseClearanceText(*cmd.Clearance); err != nil {
				return err
			}
		}
		if body.Name == "" {
			return &hintError{text: a.String() + " has no name yet", hint: "give one with --name"}
		}
		b.say("now: %s, %s, %s, clearance %s", line(now.State), orDash(line(now.Name)), orDash(line(now.Unit)), clearanceText(now.Clearance))
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// rosterBody is a person's line as it is now, to be changed.
func rosterBody(a identity.Address, now *call.Person) (*statement.Roster, error) {
	body := &statement.Roster{Change: statement.NewID(), Address: a}
	var err error
	if body.Previous, err = digest(now.Previous); err != nil {
		return nil, err
	}
	if now.State != "active" && now.State != "suspended" {
		return body, nil // nothing of an old line comes back unseen
	}
	body.Name, body.Unit = now.Name, now.Unit
	if len(now.Clearance) > 0 {
		body.Clearance, err = identity.ParseClearance(now.Clearance)
	}
	return body, err
}

// digest reads what the desk gives as the digest of a former decision.
func digest(s string) ([32]byte, error) {
	if s == "" {
		return [32]byte{}, nil
	}
	id, err := identity.ParseDeviceID(s) // 64 hexadecimal digits
	return id, err
}

// OfficerRosterRemoveCmd is `valise officer roster remove`.
type OfficerRosterRemoveCmd struct {
	signFlags
	Address string `arg:"" help:"Who leaves: name@domain."`
	Reason  string `required:"" help:"Why; it stands in the record."`
}

// Run takes a person off the roster.
func (cmd *OfficerRosterRemoveCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		now, err := b.desk.Person(ctx, a)
		if err != nil {
			return err
		}
		body := &statement.Removal{Change: statement.NewID(), Address: a, Reason: cmd.Reason}
		if body.Previous, err = digest(now.Previous); err != nil {
			return err
		}
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// OfficerRosterImportCmd is `valise officer roster import`.
type OfficerRosterImportCmd struct {
	signFlags
	File string `arg:"" type:"existingfile" help:"The roster in CSV."`
}

// Run signs a line for each person that is new or changed. Who is not in the file
// stays. What was signed already, by this officer or another one, is not signed again.
func (cmd *OfficerRosterImportCmd) Run(ctx context.Context, e *env) error {
	data, err := readUpTo(cmd.File, maxRosterFile)
	if err != nil {
		return err
	}
	people, err := readRosterFile(data)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	if cmd.StatementOut != "" {
		return &hintError{text: "an import signs many statements, and --statement-out takes one", hint: "leave it out"}
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		changes, err := b.changes(ctx, people)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return e.say("nothing changes")
		}
		if len(changes) > maxRosterChanges {
			return fmt.Errorf("%d people change, at most %d at a time: cut the file", len(changes), maxRosterChanges)
		}
		for _, body := range changes {
			b.show(body)
		}
		if err := cmd.confirm(fmt.Sprintf("sign these %d changes?", len(changes))); err != nil {
			return err
		}
		for i, body := range changes {
			raw, err := b.sign(ctx, body, statementLife)
			if err == nil {
				_, err = cmd.handIn(ctx, b, body, raw)
			}
			if err != nil {
				return fmt.Errorf("after %d of %d changes, at %s: %w", i, len(changes), body.Address, err)
			}
		}
		return nil
	})
}

// changes finds what of the file is not so already. A proposal of the same content
// that waits is taken over as it is, so that both officers sign the same.
func (b *bureau) changes(ctx context.Context, people []statement.Roster) ([]*statement.Roster, error) {
	is := make(map[identity.Address]call.Person)
	if err := b.desk.Roster(ctx, func(p *call.Person) error { is[p.Address] = *p; return nil }); err != nil {
		return nil, err
	}
	waiting, err := b.waitingRoster(ctx)
	if err != nil {
		return nil, err
	}
	var changes []*statement.Roster
	for i := range people {
		want := &people[i]
		p, known := is[want.Address]
		if !known {
			if p, err = b.desk.Person(ctx, want.Address); err != nil {
				return nil, err
			}
		}
		now, err := rosterBody(want.Address, &p)
		if err != nil {
			return nil, err
		}
		if p.State != "removed" && p.State != "unknown" && sameLine(now, want) {
			continue
		}
		want.Change, want.Previous = now.Change, now.Previous
		j := slices.IndexFunc(waiting, func(w *waitingLine) bool {
			return w.body.Previous == want.Previous && w.body.Address == want.Address && sameLine(w.body, want)
		})
		switch {
		case j >= 0 && waiting[j].mine:
			continue
		case j >= 0:
			want = waiting[j].body
		}
		changes = append(changes, want)
	}
	return changes, nil
}

// A waitingLine is a line of the roster that another officer has to sign.
type waitingLine struct {
	body *statement.Roster
	mine bool // this officer has signed it
}

func (b *bureau) waitingRoster(ctx context.Context) ([]*waitingLine, error) {
	list, err := b.desk.Proposals(ctx)
	if err != nil {
		return nil, err
	}
	me, err := b.me()
	if err != nil {
		return nil, err
	}
	var waiting []*waitingLine
	for i := range list {
		if list[i].Kind != statement.KindRoster || list[i].Body == "" {
			continue
		}
		body, err := list[i].Parse()
		if err != nil {
			return nil, err
		}
		if r, ok := body.(*statement.Roster); ok {
			waiting = append(waiting, &waitingLine{r, slices.ContainsFunc(list[i].Signed, func(s call.Signed) bool { return s.Key == me })})
		}
	}
	return waiting, nil
}

func sameLine(a, b *statement.Roster) bool {
	return a.Name == b.Name && a.Unit == b.Unit && a.Clearance.Covers(b.Clearance) && b.Clearance.Covers(a.Clearance)
}

// readRosterFile reads people; every error names the line.
func readRosterFile(data []byte) ([]statement.Roster, error) {
	c := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\ufeff")))) // spreadsheets write a byte order mark
	c.FieldsPerRecord = len(rosterColumns)
	header, err := c.Read()
	if err != nil || !slices.Equal(header, rosterColumns) {
		return nil, fmt.Errorf("line 1: want the header %q", strings.Join(rosterColumns, ","))
	}
	var people []statement.Roster
	lines := make(map[identity.Address]int)
	for {
		record, err := c.Read()
		if errors.Is(err, io.EOF) {
			return people, nil
		}
		if err != nil {
			return nil, err // names the line
		}
		at, _ := c.FieldPos(0)
		p := statement.Roster{Change: statement.NewID(), Name: record[1], Unit: record[2]}
		if p.Address, err = identity.ParseAddress(record[0]); err == nil {
			p.Clearance, err = identity.ParseClearanceText(record[3])
		}
		if err == nil {
			_, err = statement.MarshalBody(&p)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at, err)
		}
		if first := lines[p.Address]; first != 0 {
			return nil, fmt.Errorf("line %d: %s stands in line %d already", at, p.Address, first)
		}
		lines[p.Address] = at
		people = append(people, p)
	}
}
