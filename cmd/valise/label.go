// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"valise/client"
	"valise/client/local"
	"valise/hsm"
)

// labelling is part of commands that send.
type labelling struct {
	Label      string `short:"l" placeholder:"LABEL" help:"Label of the message, as \"SECRET//EYES ONLY\": the classification, then what stands beside it. Without it, the default of your domain; \"unlabelled\" for none. valise labels lists labels."`
	Precedence string `placeholder:"PRECEDENCE" help:"routine, priority, immediate or flash. What is immediate or flash is shown before what else waits for its reader, and all above routine is marked so."`
}

// LabelsCmd is `valise labels`.
type LabelsCmd struct {
	output
	To           []string `arg:"" optional:"" help:"Addresses. Without any, what you may use at all."`
	Conversation string   `short:"c" placeholder:"ID|NAME" help:"For everybody in this conversation instead."`
	All          bool     `help:"List those too that are not usable, and say why."`
}

// Run lists labels, each as send --label takes it.
func (cmd *LabelsCmd) Run(ctx context.Context, e *env) error {
	c, err := e.agent(ctx)
	if err != nil {
		return err
	}
	var l client.Catalogue
	if err := c.Call(ctx, "/labels", labelsRequest{target: target{To: cmd.To, Conversation: cmd.Conversation}, All: cmd.All}, &l); err != nil {
		return err
	}
	if e.json {
		return e.print(l)
	}
	if l.Version == 0 {
		return e.say("no policy bundle is in force here: messages bear no labels")
	}
	e.say("version %d of the policy bundle; more values can be named in one label than are listed", l.Version)
	if l.Unlabelled {
		e.say("messages may be sent without a label: --label %s", client.Unlabelled)
	}
	for _, o := range l.List {
		if o.Usable {
			note := ""
			if o.Default {
				note = "  (default)"
			}
			e.say("%-40s  %s%s", line(o.Label.Phrase), line(o.Label.Marking), note)
		}
	}
	for _, o := range l.List {
		if !o.Usable {
			about := "you"
			if o.About != "" {
				about = o.About
			}
			e.say("%-40s  NOT USABLE: %s: %s (%s)", line(o.Label.Phrase), line(about), line(o.Text), line(o.Reason))
		}
	}
	return nil
}

// banner is a message's marking, which stands before its text.
func banner(ev *client.Event) string {
	if ev.Marking == "" || ev.Kind != client.EventMessage && ev.Kind != client.EventFile && ev.Kind != client.EventOther {
		return ""
	}
	text := line(ev.Marking)
	if ev.Precedence != "" {
		text = strings.ToUpper(line(ev.Precedence)) + " · " + text
	}
	return "[" + text + "]"
}

// sayEvent shows an event, its marking first.
func (e *env) sayEvent(ev *client.Event) error {
	mark := banner(ev)
	if mark == "" {
		return e.say("%s", describe(ev))
	}
	if !e.colored() {
		return e.say("%s %s", mark, describe(ev))
	}
	_, err := fmt.Fprintln(e.out, paint(ev.Label, mark)+" "+plain(describe(ev)))
	return err
}

// colored says whether to use colours: on a terminal, unless it is asked not to.
func (e *env) colored() bool {
	return !e.json && term.IsTerminal(int(e.out.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// paint gives a banner the policy's colour for its classification, with letters that
// can be read on it; reversed where the policy gives none. The banner is harmless
// already.
func paint(l *client.Label, text string) string {
	const end = "\x1b[0m"
	if l == nil {
		return "\x1b[7m" + text + end
	}
	red, green, blue, ok := rgb(l.Color)
	if !ok {
		return "\x1b[7m" + text + end
	}
	letters := "37"
	if 299*int(red)+587*int(green)+114*int(blue) > 128_000 { // luminance: ITU-R BT.601
		letters = "30"
	}
	return fmt.Sprintf("\x1b[1;%s;48;2;%d;%d;%dm%s%s", letters, red, green, blue, text, end)
}

// rgb reads "#RRGGBB" or one of the names that policies use.
func rgb(color string) (red, green, blue byte, ok bool) {
	known := map[string]string{
		"black": "#000000", "white": "#ffffff", "red": "#ff0000", "green": "#008000", "blue": "#0000ff", "yellow": "#ffff00",
		"orange": "#ffa500", "purple": "#800080", "gray": "#808080", "grey": "#808080", "fuchsia": "#ff00ff", "aqua": "#00ffff",
		"lime": "#00ff00", "maroon": "#800000", "navy": "#000080", "olive": "#808000", "silver": "#c0c0c0", "teal": "#008080",
	}
	color = strings.ToLower(color)
	if hex, named := known[color]; named {
		color = hex
	}
	if len(color) != 7 || color[0] != '#' {
		return 0, 0, 0, false
	}
	n, err := strconv.ParseUint(color[1:], 16, 32)
	return byte(n >> 16), byte(n >> 8), byte(n), err == nil
}

// A labeller keeps the label of what is typed in a chat.
type labeller struct {
	labelling
	env     *env
	agent   *local.Client
	target  target
	marking string
}

// check takes a label if messages with it may be sent here.
func (l *labeller) check(ctx context.Context, to labelling) error {
	var label client.Label
	if err := l.agent.Call(ctx, "/preview", sendRequest{target: l.target, Label: to.Label, Precedence: to.Precedence}, &label); err != nil {
		return err
	}
	l.labelling, l.marking = to, label.Marking
	return nil
}

// change is what "/label PHRASE" does; without a phrase it shows the label, and
// "/label default" goes back to the domain's.
func (l *labeller) change(ctx context.Context, phrase string) {
	to := l.labelling
	switch phrase {
	case "":
	case "default":
		to.Label = ""
	default:
		to.Label = phrase
	}
	if err := l.check(ctx, to); err != nil {
		warnAll("the label stays: ", err)
		return
	}
	shown := l.marking
	if shown == "" {
		shown = client.Unlabelled
	}
	warn("what follows is %s", line(shown))
}

// prompt shows the label before each line, on a terminal.
func (l *labeller) prompt() {
	if l.env.json || !term.IsTerminal(int(os.Stdin.Fd())) || !term.IsTerminal(int(os.Stderr.Fd())) {
		return
	}
	if l.marking != "" {
		fmt.Fprintf(os.Stderr, "[%s] ", line(l.marking))
	}
	fmt.Fprint(os.Stderr, "> ")
}

const commandWord = "/label"

// labelCommand reads "/label PHRASE".
func labelCommand(text string) (phrase string, ok bool) {
	rest, ok := strings.CutPrefix(text, commandWord)
	if !ok || rest != "" && rest[0] != ' ' {
		return "", false
	}
	return strings.TrimSpace(rest), true
}

// escapedCommand is what is taken off a line that only looks like a command: of
// "//label …", one stroke.
func escapedCommand(text string) string {
	if strings.HasPrefix(text, "/"+commandWord) {
		return "/"
	}
	return ""
}

// warnAll tells about trouble, and what to do about it.
func warnAll(before string, err error) {
	warn("%s%v", before, err)
	if hint := hsm.Hint(err); hint != "" {
		warn("hint: %s", hint)
	}
}
