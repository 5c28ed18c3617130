// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"valise/client"
	"valise/client/local"
	"valise/client/vault"
	"valise/identity"
)

// readyPatience is how long unlock waits for the gateway.
const readyPatience = 10 * time.Second

func notReady(state client.State) error {
	text := "not connected to the gateway yet"
	if state.Error != "" {
		text += ": " + state.Error
	}
	return &hintError{text: text, hint: "messages are kept and leave when the connection is there; valise status shows it"}
}

type none struct{}

type unlockRequest struct {
	PIN string `json:"pin"`
}

// agentStatus is what `valise status` shows.
type agentStatus struct {
	Enrolled bool           `json:"enrolled"`
	Unlocked bool           `json:"unlocked"`
	Why      string         `json:"why,omitempty"` // it is locked
	Address  string         `json:"address,omitempty"`
	Device   string         `json:"device,omitempty"`
	Card     string         `json:"card,omitempty"`
	Gateway  string         `json:"gateway,omitempty"`
	Gateways []string       `json:"gateways,omitempty"` // of all its nodes
	Engine   *client.Status `json:"engine,omitempty"`
}

// A target says which conversation is meant: one by id or name, or the one with these
// people, started if there is none.
type target struct {
	To           []string `json:"to,omitempty"`
	Conversation string   `json:"conversation,omitempty"` // id, its beginning, or name
	Name         string   `json:"name,omitempty"`         // of a new one
}

type sendRequest struct {
	target
	ID   client.MessageID `json:"id,omitzero"`
	Text string           `json:"text,omitempty"`
	File string           `json:"file,omitempty"`

	Label      string `json:"label,omitempty"`      // as send --label takes it
	Precedence string `json:"precedence,omitempty"` // empty: routine
}

// sendLine is one line of the answer: progress, then the outcome.
type sendLine struct {
	ID           client.MessageID      `json:"id,omitzero"`
	Conversation client.ConversationID `json:"conversation,omitzero"`
	State        string                `json:"state"`             // measuring, uploading, queued, sent
	Marking      string                `json:"marking,omitempty"` // of its label; none: unlabelled
	Done         uint64                `json:"done,omitempty"`
	Total        uint64                `json:"total,omitempty"`
}

// labelsRequest asks which labels the people of a target may have; a target that names
// nobody asks about this device alone.
type labelsRequest struct {
	target
	All bool `json:"all,omitempty"` // those too that are not usable, with the reason
}

type eventsRequest struct {
	target
	After  string `json:"after,omitempty"`
	Unread bool   `json:"unread,omitempty"` // after what markRead said last
	Latest bool   `json:"latest,omitempty"`
	Follow bool   `json:"follow,omitempty"`
	Sent   bool   `json:"sent,omitempty"` // our own messages too
}

type fetchRequest struct {
	Cursor string `json:"cursor"`
	Dir    string `json:"dir"`
}

type fetchLine struct {
	Path  string `json:"path,omitempty"`
	Done  uint64 `json:"done,omitempty"`
	Total uint64 `json:"total,omitempty"`
}

type cursorRequest struct {
	Cursor string `json:"cursor"`
}

type addressRequest struct {
	Address string `json:"address"`
}

type membersRequest struct {
	Conversation string   `json:"conversation"`
	Who          []string `json:"who"`
	Remove       bool     `json:"remove,omitempty"`
}

type listing[T any] struct {
	List []T `json:"list"`
}

func (a *agent) routes() http.Handler {
	mux := http.NewServeMux()
	local.Handle(mux, "/status", a.status)
	local.Handle(mux, "/unlock", func(ctx context.Context, r *unlockRequest) (*none, error) { return &none{}, a.unlock(ctx, r.PIN) })
	local.Handle(mux, "/lock", func(context.Context, *none) (*none, error) { a.lock("it was asked to"); return &none{}, nil })
	local.Handle(mux, "/stop", func(context.Context, *none) (*none, error) {
		a.lock("the agent was stopped")
		a.stop()
		return &none{}, nil
	})
	local.Stream(mux, "/send", a.send)
	local.Handle(mux, "/labels", with(a, labels))
	local.Handle(mux, "/preview", with(a, preview))
	local.Stream(mux, "/events", a.events)
	local.Stream(mux, "/fetch", a.fetch)
	local.Handle(mux, "/target", with(a, func(ctx context.Context, s *session, r *target) (*client.Conversation, error) {
		id, err := s.resolve(ctx, r)
		return &client.Conversation{ID: id}, err
	}))
	local.Handle(mux, "/ready", with(a, func(ctx context.Context, s *session, _ *none) (*none, error) {
		ctx, cancel := context.WithTimeout(ctx, readyPatience)
		defer cancel()
		if err := s.engine.Ready(ctx); err != nil {
			return nil, notReady(s.engine.State())
		}
		return &none{}, nil
	}))
	local.Handle(mux, "/cursor", with(a, func(ctx context.Context, s *session, _ *none) (*cursorRequest, error) {
		_, cursor, err := s.engine.Events(ctx, client.Query{Latest: true})
		return &cursorRequest{cursor}, err
	}))
	local.Handle(mux, "/read", with(a, func(ctx context.Context, s *session, r *cursorRequest) (*none, error) {
		return &none{}, s.vault.Update(ctx, func(tx *vault.Tx) error { return tx.Put("reader", nil, []byte("unread"), []byte(r.Cursor)) })
	}))
	local.Handle(mux, "/contacts", with(a, func(ctx context.Context, s *session, r *addressRequest) (*listing[client.Contact], error) {
		list, err := s.engine.Contacts(ctx, r.Address)
		return &listing[client.Contact]{list}, err
	}))
	local.Handle(mux, "/conversations", with(a, func(_ context.Context, s *session, _ *none) (*listing[client.Conversation], error) {
		return &listing[client.Conversation]{s.engine.Conversations()}, nil
	}))
	local.Handle(mux, "/verify", with(a, func(ctx context.Context, s *session, r *addressRequest) (*client.Verification, error) {
		who, err := identity.CanonicalAddress(r.Address)
		if err != nil {
			return nil, err
		}
		return s.engine.Verify(ctx, who)
	}))
	local.Handle(mux, "/members", with(a, members))
	local.Handle(mux, "/withdraw", with(a, withdraw))
	local.Handle(mux, "/confirm", with(a, confirm))
	return mux
}

// with runs a request that needs an unlocked agent.
func with[Req, Resp any](a *agent, f func(ctx context.Context, s *session, r *Req) (*Resp, error)) func(context.Context, *Req) (*Resp, error) {
	return func(ctx context.Context, r *Req) (*Resp, error) {
		s, ctx, done, err := a.use(ctx)
		if err != nil {
			return nil, err
		}
		defer done()
		resp, err := f(ctx, s, r)
		return resp, lockedInstead(s, err)
	}
}

// lockedInstead tells that the agent was locked where an operation failed for that
// reason.
func lockedInstead(s *session, err error) error {
	if err != nil && s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return err
}

func (a *agent) status(ctx context.Context, _ *none) (*agentStatus, error) {
	st := new(agentStatus)
	p, err := loadProfile(a.home)
	if errors.Is(err, errNotEnrolled) {
		return st, nil
	}
	if err != nil {
		return nil, err
	}
	st.Enrolled, st.Address, st.Device, st.Card, st.Gateway = true, p.Address.String(), p.Device.String(), p.Card, p.Gateway
	st.Gateways = p.gateways()
	a.mu.Lock()
	s := a.session
	st.Why = a.why
	a.mu.Unlock()
	if s == nil {
		return st, nil
	}
	st.Unlocked = true
	st.Engine, err = s.engine.Status(ctx)
	return st, lockedInstead(s, err)
}

// resolve finds the conversation that a request means.
func (s *session) resolve(ctx context.Context, t *target) (client.ConversationID, error) {
	if t.Conversation != "" {
		return s.find(t.Conversation)
	}
	var who []identity.Address
	for _, text := range t.To {
		address, err := identity.CanonicalAddress(text)
		if err != nil {
			return client.ConversationID{}, err
		}
		if address != s.profile.Address && !slices.Contains(who, address) {
			who = append(who, address)
		}
	}
	if len(who) == 0 {
		return client.ConversationID{}, &hintError{text: "nobody to write to", hint: "name at least one address other than your own"}
	}
	if t.Name != "" {
		return s.engine.Start(ctx, t.Name, who)
	}
	return s.engine.Direct(ctx, who...)
}

// find looks a conversation up by its id, the beginning of its id, or its name.
func (s *session) find(text string) (client.ConversationID, error) {
	var found []client.ConversationID
	for _, c := range s.engine.Conversations() {
		if c.Name == text || len(text) >= 4 && strings.HasPrefix(c.ID.String(), strings.ToLower(text)) {
			found = append(found, c.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return client.ConversationID{}, &hintError{text: "no conversation " + text, hint: "valise conversations lists them"}
	}
	return client.ConversationID{}, &hintError{text: "more than one conversation is called " + text, hint: "name it by its id: valise conversations lists them"}
}

func (a *agent) send(ctx context.Context, r *sendRequest, send func(any) error) error {
	s, ctx, done, err := a.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	return lockedInstead(s, s.send(ctx, r, send))
}

func (s *session) send(ctx context.Context, r *sendRequest, send func(any) error) error {
	conv, err := s.resolve(ctx, &r.target)
	if err != nil {
		return err
	}
	progress := func(done, total uint64) {
		send(sendLine{State: "measuring", Done: done, Total: total})
	}
	draft := client.Draft{ID: r.ID, Conversation: conv, Text: r.Text, Label: r.Label, Precedence: r.Precedence}
	label, err := s.engine.Preview(ctx, draft)
	if err != nil {
		return err
	}
	marking := ""
	if label != nil {
		marking = label.Marking
	}
	var id client.MessageID
	if r.File != "" {
		id, err = s.engine.SendFile(ctx, draft, r.File, everyTenth(progress))
	} else {
		id, err = s.engine.Send(ctx, draft)
	}
	if err != nil {
		return err
	}
	if err := send(sendLine{ID: id, Conversation: conv, State: "queued", Marking: marking}); err != nil {
		return err
	}
	if err := s.follow(ctx, id, send); err != nil {
		return err
	}
	return send(sendLine{ID: id, Conversation: conv, State: "sent", Marking: marking})
}

// labels lists what may be written to a target. It starts no conversation.
func labels(ctx context.Context, s *session, r *labelsRequest) (*client.Catalogue, error) {
	var to client.Audience
	var err error
	if r.Conversation != "" {
		if to.Conversation, err = s.find(r.Conversation); err != nil {
			return nil, err
		}
	}
	for _, text := range r.To {
		address, err := identity.CanonicalAddress(text)
		if err != nil {
			return nil, err
		}
		to.People = append(to.People, address)
	}
	return s.engine.Labels(ctx, to, r.All)
}

// preview says which label a message would bear, or why it would not be sent. Nothing is.
func preview(ctx context.Context, s *session, r *sendRequest) (*client.Label, error) {
	conv, err := s.resolve(ctx, &r.target)
	if err != nil {
		return nil, err
	}
	label, err := s.engine.Preview(ctx, client.Draft{Conversation: conv, Label: r.Label, Precedence: r.Precedence})
	if label == nil {
		label = &client.Label{}
	}
	return label, err
}

// follow tells of an upload until the gateway has the message.
func (s *session) follow(ctx context.Context, id client.MessageID, send func(any) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.engine.Wait(ctx, id) }()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
			if done, total, ok := s.engine.Uploaded(id); ok {
				if err := send(sendLine{State: "uploading", Done: done, Total: total}); err != nil {
					return err
				}
			}
		}
	}
}

// everyTenth thins a progress that is told of each chunk.
func everyTenth(f func(done, total uint64)) func(done, total uint64) {
	var last time.Time
	return func(done, total uint64) {
		if done < total && time.Since(last) < 100*time.Millisecond {
			return
		}
		last = time.Now()
		f(done, total)
	}
}

func (a *agent) events(ctx context.Context, r *eventsRequest, send func(any) error) error {
	s, ctx, done, err := a.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	return lockedInstead(s, s.events(ctx, r, send))
}

func (s *session) events(ctx context.Context, r *eventsRequest, send func(any) error) error {
	q := client.Query{After: r.After, Latest: r.Latest}
	if r.Conversation != "" || len(r.To) > 0 {
		var err error
		if q.Conversation, err = s.resolve(ctx, &r.target); err != nil {
			return err
		}
	}
	if r.Unread {
		err := s.vault.View(ctx, func(tx *vault.Tx) error {
			at, err := tx.Get("reader", nil, []byte("unread"))
			q.After = string(at)
			return err
		})
		if err != nil {
			return err
		}
	}
	for {
		news := s.engine.Changed()
		list, next, err := s.engine.Events(ctx, q)
		if err != nil {
			return err
		}
		for _, ev := range list {
			if ev.Outgoing && !r.Sent {
				continue
			}
			if err := send(ev); err != nil {
				return err
			}
		}
		moved := next != q.After
		q.After, q.Latest = next, false
		if moved {
			continue
		}
		if !r.Follow {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (a *agent) fetch(ctx context.Context, r *fetchRequest, send func(any) error) error {
	s, ctx, done, err := a.use(ctx)
	if err != nil {
		return err
	}
	defer done()
	path, err := s.engine.Fetch(ctx, r.Cursor, r.Dir, everyTenth(func(done, total uint64) { send(fetchLine{Done: done, Total: total}) }))
	if err != nil {
		return lockedInstead(s, err)
	}
	return send(fetchLine{Path: path})
}

func members(ctx context.Context, s *session, r *membersRequest) (*none, error) {
	id, err := s.find(r.Conversation)
	if err != nil {
		return nil, err
	}
	var who []identity.Address
	for _, text := range r.Who {
		address, err := identity.CanonicalAddress(text)
		if err != nil {
			return nil, err
		}
		who = append(who, address)
	}
	if r.Remove {
		return &none{}, s.engine.Remove(ctx, id, who...)
	}
	return &none{}, s.engine.Add(ctx, id, who...)
}
