// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"valise/internal/store/authority"
)

// A TPM's evidence needs one request more than a card's, before the challenge is
// answered (spec/enrollment.md, Section 5.2):
//
//	POST tpm   {authorization, x5c, ak}  ->  {credential, secret}
//
// The directory names the resource "valiseTpm". Nothing is stored: what the TPM
// makes of the answer comes back in the attestation object.

const (
	pathTPM = "/acme/tpm"

	// maxTPMCertificates bounds the endorsement key's certificate and what the
	// client knows above it.
	maxTPMCertificates = 6
	// maxTPMPart bounds each of them, and the attestation key's public area;
	// package attest looks closer.
	maxTPMPart = 8 << 10
)

// An Activator hands out credentials for TPMs. Refusals are as for Backend.
type Activator interface {
	// Activate encrypts the secret for this authorization to the endorsement key
	// whose certificate is first in chain, for the holder of the attestation key.
	Activate(ctx context.Context, a authority.Account, authorization string, chain [][]byte, attestationKey []byte) (credential, secret []byte, err error)
}

type tpmRequest struct {
	Authorization string   `json:"authorization"` // its URL
	X5C           []string `json:"x5c"`           // DER in base64url, the endorsement key's first
	AK            string   `json:"ak"`            // TPMT_PUBLIC in base64url
}

type tpmResponse struct {
	Credential string `json:"credential"` // TPM2_ActivateCredential's credentialBlob …
	Secret     string `json:"secret"`     // … and secret, in base64url, without their sizes
}

func (s *Server) postTPM(w http.ResponseWriter, r *http.Request, c *call) error {
	var in tpmRequest
	if err := lax(c.payload, &in); err != nil {
		return err
	}
	id, ok := strings.CutPrefix(in.Authorization, s.cfg.BaseURL+pathAuthorization+"/")
	if !ok || id == "" || strings.Contains(id, "/") {
		return Refuse(MalformedRequest, "authorization is not the URL of an authorization of this authority")
	}
	if len(in.X5C) == 0 || len(in.X5C) > maxTPMCertificates {
		return Refuse(MalformedRequest, "x5c has "+strconv.Itoa(len(in.X5C))+" certificates, want 1 to "+strconv.Itoa(maxTPMCertificates))
	}
	var parts [][]byte
	for _, text := range append(in.X5C, in.AK) {
		part, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || len(part) == 0 || len(part) > maxTPMPart {
			return Refuse(MalformedRequest, "x5c and ak are base64url without padding, of at most "+strconv.Itoa(maxTPMPart)+" bytes each")
		}
		parts = append(parts, part)
	}
	last := len(parts) - 1
	credential, secret, err := s.cfg.Backend.Activate(r.Context(), c.account, id, parts[:last], parts[last])
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, jsonType, tpmResponse{
		base64.RawURLEncoding.EncodeToString(credential), base64.RawURLEncoding.EncodeToString(secret),
	})
	return nil
}
