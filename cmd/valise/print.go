// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/term"

	"valise/client"
)

// say tells a person what happens; with --json that goes to standard error. Whatever
// a stranger had a hand in is harmless for the terminal. Only who says something that
// must not get lost looks at the error.
func (e *env) say(format string, args ...any) error {
	to := e.out
	if e.json {
		to = os.Stderr
	}
	_, err := fmt.Fprintln(to, plain(fmt.Sprintf(format, args...)))
	return err
}

// warn tells about trouble on standard error.
func warn(format string, args ...any) {
	fmt.Fprintln(os.Stderr, "valise: "+plain(fmt.Sprintf(format, args...)))
}

// print writes one JSON object.
func (e *env) print(v any) error {
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	_, err = e.out.Write(line)
	return err
}

// jsonLine is an object and its line break. Characters that steer a terminal are
// escaped: encoding/json leaves those beyond ASCII as they are.
func jsonLine(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(data)+1)
	for _, r := range string(data) {
		switch {
		case !steers(r):
			out = utf8.AppendRune(out, r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
	}
	return append(out, '\n'), nil
}

// steers says whether a character moves the cursor, changes direction or hides.
func steers(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) }

// plain makes a stranger's text harmless for a terminal: nothing in it moves the
// cursor, changes direction or hides a part. Line breaks stay.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		if steers(r) && r != '\u200d' { // which joins parts of one emoji
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// line makes a stranger's text one harmless line.
func line(s string) string { return strings.NewReplacer("\n", " ", "\t", " ").Replace(plain(s)) }

// indented makes a stranger's text harmless, and shows its further lines so that none
// of them can pass for a message of somebody else.
func indented(s string) string { return strings.ReplaceAll(plain(s), "\n", "\n    ") }

// describe is an event for people.
func describe(ev *client.Event) string {
	at := ev.Time.Local().Format("2006-01-02 15:04")
	where := ""
	if ev.Name != "" {
		where = " [" + line(ev.Name) + "]"
	}
	who := func() string {
		var names []string
		for _, m := range ev.Members {
			names = append(names, fmt.Sprintf("%s (%s)", m.Address, m.Device.String()[:8]))
		}
		return strings.Join(names, ", ")
	}
	switch ev.Kind {
	case client.EventMessage:
		return fmt.Sprintf("%s %s%s: %s", at, ev.From, where, indented(ev.Text))
	case client.EventFile:
		text := fmt.Sprintf("%s %s%s: file %s, %s", at, ev.From, where, line(ev.File.Name), size(ev.File.Size))
		if ev.File.Path != "" {
			text += ", saved as " + line(ev.File.Path)
		}
		if ev.File.Missing != "" {
			text += ", not fetched (" + ev.File.Missing + ")"
		}
		return text
	case client.EventOther:
		return fmt.Sprintf("%s %s%s: a message of type %s, which this version does not show", at, ev.From, where, line(ev.MediaType))
	case client.EventJoined:
		return fmt.Sprintf("%s%s * you are in a conversation with %s", at, where, who())
	case client.EventAdded:
		if ev.Reason == client.ReasonResynced {
			return fmt.Sprintf("%s%s * in this conversation now: %s; this device was out of step and has not seen who added them", at, where, who())
		}
		return fmt.Sprintf("%s%s * %s added %s", at, where, ev.From, who())
	case client.EventRemoved:
		if why := client.StandingText(ev.Reason); why != "" {
			return fmt.Sprintf("%s%s * %s is out of this conversation: %s (%s)", at, where, who(), why, ev.Reason)
		}
		if ev.Reason == client.ReasonResynced {
			return fmt.Sprintf("%s%s * no longer in this conversation: %s; this device was out of step and has not seen who removed them", at, where, who())
		}
		return fmt.Sprintf("%s%s * %s removed %s", at, where, ev.From, who())
	case client.EventSuccessor:
		by := ev.From
		if ev.Outgoing {
			by = "you"
		}
		return fmt.Sprintf("%s%s * this conversation goes on in a new group, founded by %s, with %s%s; what did not arrive is sent again", at, where, by, who(), because(ev.Reason))
	case client.EventLeft:
		return fmt.Sprintf("%s%s * you are no longer in this conversation (%s)", at, where, line(ev.Reason))
	case client.EventRefused:
		return fmt.Sprintf("%s%s * a message from %s was REFUSED and is not shown: %s", at, where, ev.From, client.RefusedText(ev.Reason))
	case client.EventRelabelled:
		return fmt.Sprintf("%s%s * TROUBLE: message %d of %s was delivered with another label than its sender signed; that copy was refused. Tell your security officer", at, where, ev.Sequence, ev.From)
	case client.EventPolicy:
		switch {
		case ev.Reason != "":
			return fmt.Sprintf("%s * TROUBLE with the policy bundle: %s (%s); nothing is sent until the one in force is here", at, client.BundleText(ev.Reason), line(ev.Reason))
		case ev.Version > 0:
			return fmt.Sprintf("%s * version %d of the policy bundle is in force", at, ev.Version)
		}
		return at + " * the policy bundle is in order again"
	case client.EventLost:
		return fmt.Sprintf("%s%s * message %d of device %s cannot be obtained any more: ask for it to be sent anew", at, where, ev.Sequence, ev.Device.String()[:8])
	case client.EventExpired:
		from := ev.From
		if from == "" {
			from = "device " + ev.Device.String()[:8]
		}
		return fmt.Sprintf("%s%s * %s from %s expired undelivered: this device did not fetch them in time, says the gateway", at, where, messages(ev.Count), from)
	case client.EventWithheld:
		from := ev.From
		if from == "" {
			from = "device " + ev.Device.String()[:8]
		}
		return fmt.Sprintf("%s%s * %s from %s WITHHELD: this device is not cleared for them any more, says the gateway; ask your security officer", at, where, messages(ev.Count), from)
	case client.EventForbidden:
		return fmt.Sprintf("%s%s * %s to %s WITHHELD: that device is not cleared for them any more, says the gateway", at, where, messages(ev.Count), who())
	case client.EventUnfetched:
		return fmt.Sprintf("%s%s * %s to %s expired undelivered: that device did not fetch them in time, says the gateway", at, where, messages(ev.Count), who())
	case client.EventFileFetched:
		return fmt.Sprintf("%s%s * %s is with everybody (%s), and no longer at the gateway", at, where, line(ev.File.Name), devices(ev.Of))
	case client.EventFileExpired:
		return fmt.Sprintf("%s%s * %s expired at the gateway: %d of %s have it; send it again to the others", at, where, line(ev.File.Name), ev.Count, devices(ev.Of))
	case client.EventStandings:
		if ev.Reason == "" {
			return at + " * the authority's list of standings is new enough again: everything is sent"
		}
		what := fmt.Sprintf("the %d highest of %d ranks are NOT SENT", ev.Count, ev.Of)
		if ev.Count >= ev.Of {
			what = "nothing is SENT any more"
		}
		return fmt.Sprintf("%s * TROUBLE: %s (%s); %s. Compare this device's clock, and tell your security officer", at, client.HeldText(ev.Reason), line(ev.Reason), what)
	case client.EventFailed:
		what := line(ev.Text)
		if ev.File != nil {
			what = "the file " + line(ev.File.Name)
		}
		text := fmt.Sprintf("%s%s * NOT SENT: %.80s: %s", at, where, what, line(ev.Reason))
		if ev.Hint != "" {
			text += "; " + line(ev.Hint)
		}
		return text
	case client.EventHeld:
		about := ""
		if len(ev.Members) > 0 {
			about = ": " + who()
		}
		return fmt.Sprintf("%s%s * what you write here WAITS: %s (%s)%s; it goes out by itself once that is over", at, where, client.HeldText(ev.Reason), line(ev.Reason), about)
	case client.EventRecord:
		if ev.Reason == "" {
			return at + " * the authority's public record is in order again"
		}
		return fmt.Sprintf("%s * TROUBLE with the authority's public record: %s (%s); nobody new is let in. Tell your security officer", at, client.RecordText(ev.Reason), line(ev.Reason))
	case client.EventUnrecorded:
		return fmt.Sprintf("%s%s * the device %s of %s was NOT LET IN: %s (%s). Tell your security officer", at, where, ev.Device.String()[:8], ev.From, client.RecordText(ev.Reason), line(ev.Reason))
	case client.EventRestored:
		return fmt.Sprintf("%s * the gateway was restored from a backup of %s: conversations go on in new groups, and what it has forgotten since is sent again by those who still have it",
			at, ev.Taken.Local().Format(time.DateTime))
	case client.EventResynced:
		return at + " * this device's state was an older copy; it was brought up to date, and what is missing is asked for again"
	}
	return fmt.Sprintf("%s * %s", at, ev.Kind)
}

func messages(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// because says why a group was left, where this device saw it itself.
func because(reason string) string {
	text := map[string]string{
		"unknown_group":     "the gateway had lost the former one",
		"resync_impossible": "what the gateway had of the former one was not valid",
		"rolled_back":       "the gateway had gone back to an earlier state of the former one",
		"gateway_restored":  "the gateway was restored from a backup",
		"forked":            "the members of the former one were at odds",
	}[reason]
	if text == "" {
		return ""
	}
	return " (" + text + ")"
}

func size(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d bytes", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	if n < 1<<30 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}

func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", n)
}

// A bar shows progress on a terminal, and nothing elsewhere.
type bar struct {
	name  string
	shown time.Time
	began time.Time
	on    bool
}

func newBar(name string) *bar {
	return &bar{name: line(name), began: time.Now(), on: term.IsTerminal(int(os.Stderr.Fd()))}
}

func (b *bar) show(what string, done, total uint64) {
	if !b.on || total == 0 || time.Since(b.shown) < 100*time.Millisecond && done < total {
		return
	}
	b.shown = time.Now()
	const width = 30
	full := int(done * width / total)
	rate := float64(done) / max(time.Since(b.began).Seconds(), 0.001)
	fmt.Fprintf(os.Stderr, "\r%s %s [%s%s] %3d%% %s/s \x1b[K", what, b.name, strings.Repeat("#", full), strings.Repeat(".", width-full), done*100/total, size(uint64(rate)))
}

func (b *bar) end() {
	if b.on && !b.shown.IsZero() {
		fmt.Fprintln(os.Stderr)
	}
}
