// SPDX-License-Identifier: Apache-2.0

package client

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"valise/bulletin"
	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/wire"
)

// What callers act on.
var (
	errNoConversation error = &hintError{"no such conversation", "valise conversations lists them"}
	// ErrNotMember: this device is not in the conversation any more.
	ErrNotMember error = &hintError{"this device is no longer a member of the conversation", "ask a member to add you again, or start a new conversation"}
	// ErrOffline: the question needs the gateway.
	ErrOffline error = &hintError{"there is no connection to the gateway", "check the network; valise status shows what is wrong"}
	// ErrUnknownMessage: no message of ours has this id.
	ErrUnknownMessage = errors.New("no such message was sent from here")
)

// A brokenError is a question that was lost with the connection.
type brokenError struct{ err error }

func (e *brokenError) Error() string {
	return "the connection to the gateway broke off: " + e.err.Error()
}
func (e *brokenError) Unwrap() error { return ErrOffline }
func (e *brokenError) Hint() string  { return "try again; valise status shows the connection" }

type hintError struct{ text, hint string }

func (e *hintError) Error() string { return e.text }
func (e *hintError) Hint() string  { return e.hint }

// hintOf is the remedy that an error carries, or nothing.
func hintOf(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}

// NewConversationID draws an id.
func NewConversationID() (id ConversationID) { rand.Read(id[:]); return id }

// The states of an outgoing message.
const (
	OutcomeQueued  = "queued"
	OutcomeSent    = "sent" // on the gateway's disk, in every recipient's mailbox
	OutcomeRefused = "refused"
)

// An Outcome says what became of an outgoing message.
type Outcome struct {
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	Hint   string `json:"hint,omitempty"`
	Intent uint64 `json:"intent"`
}

func (c *change) outcome(in *intent, state string, why error) error {
	content, err := wire.ParseContent(in.Content)
	if err != nil || in.Resend || content.MediaType == wire.MediaResend || content.MediaType == mediaSuccessor {
		return err
	}
	o := Outcome{State: state, Intent: in.Number}
	if why != nil {
		o.Reason, o.Hint = why.Error(), hintOf(why)
	}
	return putJSON(c.Tx, tableMine, nil, content.ID[:], o)
}

// A Draft is a message to be.
type Draft struct {
	ID           MessageID // zero: drawn. The same id twice is one message.
	Conversation ConversationID
	Text         string
	InReplyTo    MessageID
	Expiry       time.Time
	Label        string // as policy.Set.Phrase reads it; "": the domain's default; Unlabelled: none
	Precedence   string // "": routine
}

// Send queues a text. When it returns the message is on this device's disk and will
// leave as soon as it can; Wait tells when the gateway has it.
func (e *Engine) Send(ctx context.Context, d Draft) (MessageID, error) {
	switch {
	case !utf8.ValidString(d.Text):
		return MessageID{}, errors.New("the text is not UTF-8")
	case len(d.Text) > MaxText:
		return MessageID{}, fmt.Errorf("the text has %d bytes; one message takes %d: send it as a file", len(d.Text), MaxText)
	case d.Text == "":
		return MessageID{}, errors.New("there is no text to send")
	}
	content := &wire.Content{ID: d.ID, MediaType: wire.MediaText, InReplyTo: d.InReplyTo, Time: uint64(e.now().UnixMilli()), Body: []byte(d.Text)}
	if !d.Expiry.IsZero() {
		content.Expiry = uint64(d.Expiry.UnixMilli())
	}
	m, err := e.fitting(d)
	if err != nil {
		return MessageID{}, err
	}
	return e.queueOwn(d.Conversation, content, m, nil)
}

// fitting is a draft's label, if everybody who is in the conversation now may have it. It
// is decided on again when the message is sealed: others may have come in by then.
func (e *Engine) fitting(d Draft) (mark, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m, err := e.markOf(d.Label, d.Precedence)
	if err != nil {
		return m, err
	}
	if old := e.tooOld(m); old != nil && e.link != nil && e.now().Sub(e.standings.asked).Abs() < 4*freshPause {
		return m, old // offline, it waits for what the gateway will show
	}
	conv := e.conversations[d.Conversation]
	if conv == nil || conv.State != stateActive || e.law.missing {
		return m, nil
	}
	g, err := e.group(conv.Group)
	if err != nil {
		return m, err
	}
	return m, e.decide(m, g.Members())
}

// queueOwn queues a message of this device's own, once for each id.
func (e *Engine) queueOwn(id ConversationID, content *wire.Content, m mark, also func(c *change) error) (MessageID, error) {
	if content.ID == (MessageID{}) {
		content.ID = NewMessageID()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	conv := e.conversations[id]
	if conv == nil {
		return MessageID{}, errNoConversation
	}
	if conv.State == stateLeft {
		return MessageID{}, ErrNotMember
	}
	err := e.update(func(c *change) error {
		known, err := c.Has(tableMine, nil, content.ID[:])
		if err != nil || known {
			return err
		}
		in, err := e.queueContent(c, id, content, m)
		if err != nil {
			return err
		}
		if also != nil {
			if err := also(c); err != nil {
				return err
			}
		}
		return c.outcome(in, OutcomeQueued, nil)
	})
	return content.ID, err
}

func (e *Engine) queueContent(c *change, conv ConversationID, content *wire.Content, m mark) (*intent, error) {
	raw, err := content.Marshal()
	if err != nil {
		return nil, err
	}
	in := &intent{Kind: intentContent, Conversation: conv, Content: raw, Mark: m}
	return in, c.queue(in)
}

// queueService queues what devices say to each other; its label is chosen when it is
// sealed.
func (e *Engine) queueService(c *change, conv ConversationID, content *wire.Content) (*intent, error) {
	raw, err := content.Marshal()
	if err != nil {
		return nil, err
	}
	in := &intent{Kind: intentContent, Conversation: conv, Content: raw, Service: true}
	return in, c.queue(in)
}

// Outcome says what became of a message sent from here.
func (e *Engine) Outcome(ctx context.Context, id MessageID) (*Outcome, error) {
	var o *Outcome
	err := e.cfg.Vault.View(ctx, func(tx *vault.Tx) (err error) {
		o, err = getJSON[Outcome](tx, tableMine, nil, id[:])
		return err
	})
	if err == nil && o == nil {
		err = ErrUnknownMessage
	}
	return o, err
}

// Wait returns when the gateway has a message on disk, or why it never will.
func (e *Engine) Wait(ctx context.Context, id MessageID) error {
	for {
		news := e.bell.wait()
		o, err := e.Outcome(ctx, id)
		switch {
		case err != nil:
			return err
		case o.State == OutcomeSent:
			return nil
		case o.State == OutcomeRefused:
			return &hintError{o.Reason, o.Hint}
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finish tells those who wait for an intent; e.mu is held.
func (e *Engine) finish(number uint64, err error) {
	for _, ch := range e.waiters[number] {
		ch <- err
	}
	delete(e.waiters, number)
}

// awaitIntent waits for an intent that the caller has just queued.
func (e *Engine) awaitIntent(ctx context.Context, ch chan error) error {
	select {
	case err := <-ch:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Start queues a new conversation with people. All their devices become members, and
// our own other ones. The conversation can be written to at once.
func (e *Engine) Start(ctx context.Context, name string, with []identity.Address) (ConversationID, error) {
	if err := checkName(name); err != nil {
		return ConversationID{}, err
	}
	if len(with) == 0 || len(with) > MaxMembers {
		return ConversationID{}, fmt.Errorf("a conversation begins with 1 to %d people", MaxMembers)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.start(name, texts(with))
}

func (e *Engine) start(name string, with []string) (ConversationID, error) {
	conv := &conversation{ID: NewConversationID(), Name: name, State: stateFounding, Started: e.now().Unix(), With: with}
	err := e.update(func(c *change) error {
		return errors.Join(c.put(conv), c.queue(&intent{Kind: intentFound, Conversation: conv.ID, Addresses: with}))
	})
	return conv.ID, err
}

func texts(list []identity.Address) []string {
	out := make([]string, 0, len(list))
	for _, a := range list {
		out = append(out, a.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Direct finds the nameless conversation with exactly these people, or starts one.
func (e *Engine) Direct(ctx context.Context, with ...identity.Address) (ConversationID, error) {
	want := texts(with)
	e.mu.Lock()
	defer e.mu.Unlock()
	var found []*conversation
	for _, conv := range e.conversations {
		if conv.Name != "" || conv.Unnamed || conv.State == stateLeft || conv.State == stateFailed || conv.State == stateCandidate {
			continue
		}
		if slices.Equal(e.people(conv), want) {
			found = append(found, conv)
		}
	}
	if len(found) == 0 {
		return e.start("", want)
	}
	// Two people may have begun at the same time: both sides prefer the same one.
	slices.SortFunc(found, func(a, b *conversation) int { return slices.Compare(a.ID[:], b.ID[:]) })
	return found[0].ID, nil
}

// people lists the addresses in a conversation but our own.
func (e *Engine) people(conv *conversation) []string {
	if conv.State == stateFounding {
		return conv.With
	}
	var out []string
	var list []member
	if g, err := e.group(conv.Group); err == nil {
		list, _ = e.members(g)
	} else if conv.State == stateBroken {
		list = e.viewOf(conv.Predecessor)
	}
	for _, m := range list {
		if m.Address != e.cfg.Address {
			out = append(out, m.Address.String())
		}
	}
	if len(out) == 0 {
		out = slices.Clone(conv.With) // the others' adding is still under way
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Add brings people's devices into a conversation, those of people who are in it too
// if they have new ones, and waits until the gateway has taken the change.
func (e *Engine) Add(ctx context.Context, id ConversationID, who ...identity.Address) error {
	return e.change(ctx, id, &intent{Kind: intentAdd, Conversation: id, Addresses: texts(who)})
}

// Remove takes people with all their devices out of a conversation.
func (e *Engine) Remove(ctx context.Context, id ConversationID, who ...identity.Address) error {
	return e.change(ctx, id, &intent{Kind: intentRemove, Conversation: id, Addresses: texts(who)})
}

// RemoveDevice takes one device out of a conversation.
func (e *Engine) RemoveDevice(ctx context.Context, id ConversationID, device identity.DeviceID) error {
	return e.change(ctx, id, &intent{Kind: intentRemove, Conversation: id, Device: device})
}

func (e *Engine) change(ctx context.Context, id ConversationID, in *intent) error {
	e.mu.Lock()
	conv := e.conversations[id]
	if conv == nil {
		e.mu.Unlock()
		return errNoConversation
	}
	done := make(chan error, 1)
	err := e.update(func(c *change) error { return c.queue(in) })
	if err == nil {
		e.waiters[in.Number] = append(e.waiters[in.Number], done)
	}
	e.mu.Unlock()
	if err != nil {
		return err
	}
	return e.awaitIntent(ctx, done)
}

// A Conversation is what is shown of one.
type Conversation struct {
	ID      ConversationID `json:"id"`
	Name    string         `json:"name,omitempty"`
	State   string         `json:"state"`
	People  []string       `json:"people"`
	Members []Member       `json:"members"`
	Epoch   uint64         `json:"epoch"`
	Suite   string         `json:"suite"`
	Started time.Time      `json:"started"`
	Reason  string         `json:"reason,omitempty"`
	Held    string         `json:"held,omitempty"` // why what is written into it waits: a reason code, for HeldText
}

// Conversations lists all conversations, oldest first.
func (e *Engine) Conversations() []Conversation {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []Conversation{}
	for _, conv := range e.conversations {
		if conv.State == stateCandidate {
			continue
		}
		v := Conversation{ID: conv.ID, Name: conv.Name, State: conv.State, People: e.people(conv), Started: time.Unix(conv.Started, 0), Reason: conv.Why, Held: conv.Held}
		if g, err := e.group(conv.Group); err == nil {
			v.Epoch, v.Suite = g.Epoch(), g.Suite().String()
			list, _ := e.members(g)
			for _, m := range list {
				v.Members = append(v.Members, Member{Address: m.Address.String(), Device: m.Device})
			}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b Conversation) int {
		return cmp.Or(a.Started.Compare(b.Started), slices.Compare(a.ID[:], b.ID[:]))
	})
	return out
}

// Ready returns when this device is connected and others can add it to conversations.
func (e *Engine) Ready(ctx context.Context) error {
	for {
		news := e.bell.wait()
		e.mu.Lock()
		ready := e.link != nil && e.meta.LastResort > 0 && (e.slot == nil || e.slot.Kind != slotPublish)
		e.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A Contact is somebody who can be written to.
type Contact struct {
	Address string              `json:"address"`
	Devices []identity.DeviceID `json:"devices"`
	Tiers   []identity.Tier     `json:"tiers"` // of each device
}

// directory asks the gateway who begins with a prefix. The caller checks each chain.
func (e *Engine) directory(ctx context.Context, prefix string) ([][][]byte, error) {
	e.mu.Lock()
	l := e.link
	e.mu.Unlock()
	if l == nil {
		return nil, ErrOffline
	}
	answer, err := l.call(ctx, &wire.GetDirectory{Prefix: prefix})
	if err != nil && ctx.Err() == nil {
		return nil, &brokenError{err}
	}
	if err != nil {
		return nil, err
	}
	dir, ok := answer.(*wire.Directory)
	if !ok {
		return nil, codeOf(answer)
	}
	return dir.Chains, nil
}

// Contacts asks the gateway's directory; every certificate in it is checked here.
func (e *Engine) Contacts(ctx context.Context, prefix string) ([]Contact, error) {
	chains, err := e.directory(ctx, prefix)
	if err != nil {
		return nil, err
	}
	byAddress := map[string]*Contact{}
	for _, chain := range chains {
		d, err := deviceOf(e.cfg.Trust, mls.X509Credential(chain))
		if err != nil {
			e.cfg.Log.Warn("directory entry refused", "error", err)
			continue
		}
		c := byAddress[d.Address.String()]
		if c == nil {
			c = &Contact{Address: d.Address.String()}
			byAddress[c.Address] = c
		}
		if !slices.Contains(c.Devices, d.ID) {
			c.Devices, c.Tiers = append(c.Devices, d.ID), append(c.Tiers, d.Tier)
		}
	}
	out := make([]Contact, 0, len(byAddress))
	for _, c := range byAddress {
		out = append(out, *c)
	}
	slices.SortFunc(out, func(a, b Contact) int { return cmp.Compare(a.Address, b.Address) })
	return out, nil
}

// A Verification is what two people compare by voice.
type Verification struct {
	Address string              `json:"address"`
	Number  string              `json:"number"`
	Devices []identity.DeviceID `json:"devices"`
	Own     []identity.DeviceID `json:"own"`
}

// Verify computes the safety number between our devices and another person's.
func (e *Engine) Verify(ctx context.Context, who identity.Address) (*Verification, error) {
	v := &Verification{Address: who.String(), Own: []identity.DeviceID{e.self}}
	for _, a := range []string{who.String(), e.cfg.Address.String()} {
		list, err := e.Contacts(ctx, a)
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			switch c.Address {
			case who.String():
				v.Devices = c.Devices
			case e.cfg.Address.String():
				v.Own = c.Devices
				if !slices.Contains(v.Own, e.self) {
					v.Own = append(v.Own, e.self)
				}
			}
		}
	}
	if len(v.Devices) == 0 {
		return nil, &NoDevice{who.String()}
	}
	v.Number = identity.SafetyNumber(v.Own, v.Devices)
	return v, nil
}

// A Status is a summary for people.
type Status struct {
	Address       string            `json:"address"`
	Device        identity.DeviceID `json:"device"`
	Gateway       string            `json:"gateway"`
	Connection    State             `json:"connection"`
	Conversations int               `json:"conversations"`
	Queued        uint64            `json:"queued"`
	ClockSkew     string            `json:"clock_skew,omitempty"`
	Expires       time.Time         `json:"certificate_expires"`
	Record        *RecordStatus     `json:"record,omitempty"` // nil: the authority showed none
}

// A RecordStatus is what this device knows of its authority's public record.
type RecordStatus struct {
	Manifest   uint64 `json:"manifest"`             // number
	Leaves     int64  `json:"leaves"`               // of the newest checkpoint
	Checkpoint string `json:"checkpoint,omitempty"` // for auditors
	Trouble    string `json:"trouble,omitempty"`    // a reason code: nobody new is let in
	Bulletin   uint64 `json:"bulletin,omitempty"`   // number of the newest one
	Age        string `json:"age,omitempty"`        // of it
	Refused    int    `json:"refused,omitempty"`    // ranks that are not sent because of its age
	Evidence   string `json:"evidence,omitempty"`   // a signed checkpoint that contradicts Checkpoint
}

// Status summarizes.
func (e *Engine) Status(ctx context.Context) (*Status, error) {
	e.mu.Lock()
	s := &Status{Address: e.cfg.Address.String(), Device: e.self, Gateway: e.cfg.Gateway, Connection: e.state, Conversations: len(e.conversations)}
	if e.skew.Abs() > time.Minute {
		s.ClockSkew = e.skew.String()
	}
	chain := e.leaf
	if k := &e.known; k.manifest != nil {
		s.Record = &RecordStatus{
			Manifest: k.manifest.Number, Leaves: k.head.N, Checkpoint: k.cell.Checkpoint, Trouble: k.trouble, Evidence: k.cell.Evidence,
			Bulletin: e.standings.set.Number(), Refused: e.tightening().Step(e.age(), e.levels()),
		}
		if age := e.age(); age != bulletin.Never {
			s.Record.Age = age.Round(time.Second).String()
		}
	}
	e.mu.Unlock()
	if d, err := deviceOf(e.cfg.Trust, mls.X509Credential(chain)); err == nil {
		s.Expires = d.Leaf.NotAfter
	}
	err := e.cfg.Vault.View(ctx, func(tx *vault.Tx) error {
		cells, err := tx.List(tableIntent, nil)
		s.Queued = uint64(len(cells))
		return err
	})
	return s, err
}
