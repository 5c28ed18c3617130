// SPDX-License-Identifier: Apache-2.0

package desk

import (
	"net/http"
	"net/url"
	"strconv"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

func (s *Server) getRequests(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Requests(r.Context(), maxRequests)
	return listed(list), err
}

func (s *Server) getRequest(r *http.Request) (any, error) {
	id, err := segment(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return s.cfg.Backend.Request(r.Context(), id)
}

// listed makes an answer of a list; none is an empty one.
func listed[T any](list []T) call.List[T] {
	if list == nil {
		list = []T{}
	}
	return call.List[T]{List: list}
}

// getRoster returns a page; its Next is where the following one begins.
func (s *Server) getRoster(r *http.Request) (any, error) {
	q, err := query(r, "after")
	if err != nil {
		return nil, err
	}
	list, err := s.cfg.Backend.Roster(r.Context(), q.Get("after"), maxPage)
	page := listed(list)
	if len(list) == maxPage {
		page.Next = list[len(list)-1].Address.String()
	}
	return page, err
}

func (s *Server) getPerson(r *http.Request) (any, error) {
	address, err := identity.ParseAddress(r.PathValue("address"))
	if err != nil {
		return nil, Refuse(call.ReasonMalformed, err.Error())
	}
	return s.cfg.Backend.Person(r.Context(), address)
}

func (s *Server) getDevices(r *http.Request) (any, error) {
	t, err := call.ParseTarget(r.PathValue("kind"), r.PathValue("name"))
	if err != nil {
		return nil, Refuse(call.ReasonMalformed, err.Error())
	}
	list, err := s.cfg.Backend.Devices(r.Context(), t)
	if len(list) > statement.MaxDevices {
		list = list[:statement.MaxDevices]
	}
	return listed(list), err
}

func (s *Server) getRules(r *http.Request) (any, error) { return s.cfg.Backend.Rules(r.Context()) }

func (s *Server) getProfiles(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Profiles(r.Context())
	return listed(list), err
}

func (s *Server) getOfficers(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Officers(r.Context())
	return listed(list), err
}

// getProposals leaves out long bodies: whoever wants to sign fetches the one.
func (s *Server) getProposals(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Proposals(r.Context(), maxProposals)
	for i := range list {
		if len(list[i].Body) > maxListedBody {
			list[i].Body = ""
		}
	}
	return listed(list), err
}

func (s *Server) getProposal(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Proposals(r.Context(), maxProposals)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Digest == r.PathValue("digest") {
			return p, nil
		}
	}
	return nil, Refuse(call.ReasonNotFound, "no such proposal waits: it may be in force already, or have run out")
}

func (s *Server) getStandings(r *http.Request) (any, error) {
	list, err := s.cfg.Backend.Standings(r.Context(), maxStandings)
	return listed(list), err
}

// getLedger returns leaves with their payloads, as many as fit one answer and
// at least one.
func (s *Server) getLedger(r *http.Request) (any, error) {
	q, err := query(r, "from")
	if err != nil {
		return nil, err
	}
	from, err := strconv.ParseInt(q.Get("from"), 10, 64)
	if err != nil || from < 0 || strconv.FormatInt(from, 10) != q.Get("from") {
		return nil, Refuse(call.ReasonMalformed, "from: want the index of a leaf")
	}
	items, err := s.cfg.Backend.Items(r.Context(), from, maxItems)
	total := 0
	for i, item := range items.Items {
		if total += len(item.Entry) + len(item.Payload); i > 0 && total > maxItemOctets {
			items.Items = items.Items[:i]
			break
		}
	}
	return items, err
}

// query returns a request's query, which has this one member or none.
func query(r *http.Request, name string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil || len(q[name]) != len(q) || len(q) > 1 || len(q.Get(name)) > maxSegment {
		return nil, Refuse(call.ReasonMalformed, "the query takes \""+name+"\" alone, once")
	}
	return q, nil
}

// segment is an identifier in a path: bounded, and of characters that stand in
// our identifiers.
func segment(s string) (string, error) {
	ok := len(s) > 0 && len(s) <= maxSegment
	for i := range len(s) {
		c := s[i]
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if !ok {
		return "", Refuse(call.ReasonMalformed, "not an identifier")
	}
	return s, nil
}
