// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strconv"

	"valise/identity"
	"valise/internal/store/authority"
)

const jsonType = "application/json"

// lax decodes a payload object. RFC 8555, Section 7 has servers ignore unknown
// fields; what must be there is checked by the caller.
func lax(payload []byte, into any) error {
	if len(payload) == 0 || payload[0] != '{' || json.Unmarshal(payload, into) != nil {
		return Refuse(MalformedRequest, "the payload is not a JSON object of the right types")
	}
	return nil
}

// asGet demands an empty payload (RFC 8555, Section 6.3).
func asGet(c *call) error {
	if len(c.payload) != 0 {
		return Refuse(MalformedRequest, "this resource is fetched by POST-as-GET, with an empty payload")
	}
	return nil
}

func (s *Server) postNewAccount(w http.ResponseWriter, r *http.Request, c *call) error {
	var in newAccount
	if err := lax(c.payload, &in); err != nil {
		return err
	}
	var b *Binding
	if len(in.ExternalAccountBinding) != 0 && !in.OnlyReturnExisting {
		var err error
		if b, err = parseBinding(in.ExternalAccountBinding, s.cfg.BaseURL+pathNewAccount, c.jwk); err != nil {
			return err
		}
	}
	jwk, err := c.jwk.Public().MarshalJSON()
	if err != nil {
		return err
	}
	a, isNew, err := s.cfg.Backend.Register(r.Context(), c.thumbprint, jwk, b)
	if err != nil {
		if refusal := asRefusal(err); refusal != nil && refusal.Reason == InvitationRequired && in.OnlyReturnExisting {
			return Refuse(UnknownAccount, "there is no account with this key")
		}
		return err
	}
	status := http.StatusOK
	if isNew {
		status = http.StatusCreated
	}
	s.writeAccount(w, status, &a)
	return nil
}

func (s *Server) writeAccount(w http.ResponseWriter, status int, a *authority.Account) {
	location := s.url(pathAccount, strconv.FormatInt(a.ID, 10))
	w.Header().Set("Location", location)
	writeJSON(w, status, jsonType, account{Status: a.Status, Orders: location + "/orders"})
}

func (c *call) ownsPath() error {
	if c.id != strconv.FormatInt(c.account.ID, 10) {
		return Refuse(NotYours, "this account belongs to another key")
	}
	return nil
}

func (s *Server) postAccount(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := c.ownsPath(); err != nil {
		return err
	}
	var in update
	if len(c.payload) != 0 {
		if err := lax(c.payload, &in); err != nil {
			return err
		}
	}
	switch in.Status {
	case "":
	case authority.Deactivated:
		if err := s.cfg.Backend.Deactivate(r.Context(), c.account); err != nil {
			return err
		}
		c.account.Status = authority.Deactivated
	default:
		return Refuse(MalformedRequest, "an account can only be deactivated")
	}
	s.writeAccount(w, http.StatusOK, &c.account)
	return nil
}

func (s *Server) postOrders(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := c.ownsPath(); err != nil {
		return err
	}
	if err := asGet(c); err != nil {
		return err
	}
	orders, err := s.cfg.Backend.Orders(r.Context(), c.account, maxListed)
	if err != nil {
		return err
	}
	out := orderList{Orders: []string{}}
	for _, o := range orders {
		out.Orders = append(out.Orders, s.url(pathOrder, o.ID))
	}
	writeJSON(w, http.StatusOK, jsonType, out)
	return nil
}

func (s *Server) postNewOrder(w http.ResponseWriter, r *http.Request, c *call) error {
	var in newOrder
	if err := lax(c.payload, &in); err != nil {
		return err
	}
	if in.NotBefore != "" || in.NotAfter != "" {
		return Refuse(MalformedRequest, "the validity is the profile's; leave notBefore and notAfter out")
	}
	device, err := orderedDevice(in.Identifiers)
	if err != nil {
		return err
	}
	var replaced CertID
	if in.Replaces != nil {
		if replaced, err = ParseCertID(*in.Replaces); err != nil {
			return err
		}
		// What was replaced already is in the account as it is now.
		if c.account, err = s.cfg.Backend.UseNonceNow(r.Context(), c.account); err != nil {
			return err
		}
		if err := s.cfg.Backend.MayReplace(r.Context(), c.account, device, replaced); err != nil {
			return err
		}
	}
	o, a, err := s.cfg.Backend.NewOrder(r.Context(), c.account, device)
	if err != nil {
		return err
	}
	if in.Replaces != nil {
		if err := s.cfg.Backend.Replace(r.Context(), o.ID, replaced); err != nil {
			return err
		}
		o.Replaces = *in.Replaces
	}
	if err := s.spent(r.Context(), VoucherOf(r.Context()), nil); err != nil {
		return err
	}
	w.Header().Set("Location", s.url(pathOrder, o.ID))
	writeJSON(w, http.StatusCreated, jsonType, s.order(&o, &a))
	return nil
}

// orderedDevice reads an order's only identifier. What is wrong with each one is told
// in a subproblem (RFC 8555, Section 6.7.1).
func orderedDevice(identifiers []identifier) (identity.DeviceID, error) {
	var none identity.DeviceID
	if len(identifiers) == 0 {
		return none, Refuse(WrongIdentifier, "an order has exactly one identifier, and this one has none")
	}
	refusal := &Refusal{Reason: WrongIdentifier, Detail: "the identifier must be a " + IdentifierType + " with a device id"}
	devices := make([]identity.DeviceID, 0, 1)
	for i, id := range identifiers {
		if i == maxSubproblems {
			break
		}
		device, err := identity.ParseDeviceID(id.Value)
		sub := subproblem{Identifier: id.clipped()}
		switch {
		case id.Type != IdentifierType:
			sub.Type, sub.Detail = problemPrefix+"unsupportedIdentifier", "devices are enrolled here, by "+IdentifierType
		case err != nil:
			sub.Type, sub.Detail = problemPrefix+"rejectedIdentifier", "the value must be the SHA-256 of the key's SubjectPublicKeyInfo in lower-case hexadecimal"
		case len(devices) == maxIdentifiers:
			sub.Type, sub.Detail = problemPrefix+"rejectedIdentifier", "an order is for one device; make another order for this one"
		default:
			devices = append(devices, device)
			continue
		}
		refusal.subproblems = append(refusal.subproblems, sub)
	}
	if len(refusal.subproblems) > 0 {
		if len(identifiers) > maxIdentifiers {
			refusal.Detail = "an order has exactly one identifier: a " + IdentifierType + " with a device id"
		}
		return none, refusal
	}
	return devices[0], nil
}

func (s *Server) postOrder(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := asGet(c); err != nil {
		return err
	}
	o, a, err := s.cfg.Backend.Order(r.Context(), c.account, c.id)
	if err != nil {
		return err
	}
	s.writeOrder(w, &o, &a)
	return nil
}

func (s *Server) writeOrder(w http.ResponseWriter, o *authority.Order, a *authority.Authorization) {
	if o.Status == authority.Processing {
		w.Header().Set("Retry-After", "2")
	}
	w.Header().Set("Location", s.url(pathOrder, o.ID))
	writeJSON(w, http.StatusOK, jsonType, s.order(o, a))
}

func (s *Server) postAuthorization(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := asGet(c); err != nil {
		return err
	}
	o, a, err := s.cfg.Backend.Authorization(r.Context(), c.account, c.id)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, jsonType, s.authorization(&o, &a))
	return nil
}

// postChallenge takes the response to device-attest-01 (draft, Section 5). An empty
// payload asks for the challenge's state.
func (s *Server) postChallenge(w http.ResponseWriter, r *http.Request, c *call) error {
	if len(c.payload) == 0 {
		o, a, err := s.cfg.Backend.Authorization(r.Context(), c.account, c.id)
		if err = s.spent(r.Context(), VoucherOf(r.Context()), err); err != nil {
			return err
		}
		s.writeChallenge(w, &o, &a)
		return nil
	}
	evidence, err := attestationObject(c.payload)
	if err != nil {
		return err
	}
	a, err := s.cfg.Backend.Attest(r.Context(), c.account, c.id, evidence)
	if err = s.spent(r.Context(), VoucherOf(r.Context()), err); err != nil {
		return err
	}
	if a.Status == authority.Invalid {
		s.cfg.Refused(r.Context(), &Refusal{Reason: Reason(a.Reason), Detail: "the evidence was not accepted"}, auditAttrs(r)...)
	}
	s.writeChallenge(w, nil, &a)
	return nil
}

func (s *Server) writeChallenge(w http.ResponseWriter, o *authority.Order, a *authority.Authorization) {
	w.Header().Add("Link", "<"+s.url(pathAuthorization, a.ID)+`>;rel="up"`)
	writeJSON(w, http.StatusOK, jsonType, s.challenge(o, a))
}

func attestationObject(payload []byte) ([]byte, error) {
	var in answer
	if err := lax(payload, &in); err != nil {
		return nil, err
	}
	if in.Error != nil {
		return nil, Refuse(MalformedRequest, "the client says that it cannot attest its key")
	}
	if in.AttObj == nil {
		return nil, Refuse(MalformedRequest, "the response has no attObj")
	}
	if len(*in.AttObj) > base64.RawURLEncoding.EncodedLen(maxEvidence) {
		return nil, Refuse(MalformedRequest, "the attestation object is larger than "+strconv.Itoa(maxEvidence)+" bytes")
	}
	evidence, err := base64.RawURLEncoding.Strict().DecodeString(*in.AttObj)
	if err != nil || len(evidence) == 0 {
		return nil, Refuse(MalformedRequest, "attObj is not base64url without padding")
	}
	return evidence, nil
}

func (s *Server) postFinalize(w http.ResponseWriter, r *http.Request, c *call) error {
	var in finalize
	if err := lax(c.payload, &in); err != nil {
		return err
	}
	if in.CSR == nil || len(*in.CSR) > base64.RawURLEncoding.EncodedLen(maxCSR) {
		return Refuse(BadCSR, "there is no csr, or it is larger than "+strconv.Itoa(maxCSR)+" bytes")
	}
	csr, err := base64.RawURLEncoding.Strict().DecodeString(*in.CSR)
	if err != nil {
		return Refuse(BadCSR, "the csr is not base64url without padding")
	}
	o, a, err := s.cfg.Backend.Finalize(r.Context(), c.account, c.id, csr)
	if err = s.spent(r.Context(), VoucherOf(r.Context()), err); err != nil {
		return err
	}
	s.writeOrder(w, &o, &a)
	return nil
}

// postCertificate is RFC 8555, Section 7.4.2.
func (s *Server) postCertificate(w http.ResponseWriter, r *http.Request, c *call) error {
	if err := asGet(c); err != nil {
		return err
	}
	chain, err := s.cfg.Backend.Certificate(r.Context(), c.account, c.id)
	if err != nil {
		return err
	}
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	w.Header().Set("Content-Type", "application/pem-certificate-chain")
	_, _ = w.Write(out)
	return nil
}
