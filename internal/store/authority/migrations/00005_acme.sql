-- SPDX-License-Identifier: Apache-2.0
-- What an order replaces (RFC 9773, Section 5), and the answers to CRL and OCSP
-- clients, which outlive a restart and a token that is away.

-- +goose Up
CREATE TABLE replacements (
    order_id    TEXT PRIMARY KEY REFERENCES orders (id),
    certificate TEXT NOT NULL -- RFC 9773, Section 4.1: base64url(key identifier).base64url(serial)
) STRICT;
CREATE INDEX replacements_certificate ON replacements (certificate);

CREATE TABLE crls ( -- the newest one counts; its number is never used again
    number BIGINT PRIMARY KEY,
    until  BIGINT NOT NULL,
    der    BLOB NOT NULL
) STRICT;

CREATE TABLE ocsp_responses (
    id    BLOB PRIMARY KEY, -- SHA-256 of the CertID that was asked for
    state BLOB NOT NULL,    -- what it says, to find out whether that still holds
    until BIGINT NOT NULL,
    der   BLOB NOT NULL
) STRICT;
CREATE INDEX ocsp_responses_until ON ocsp_responses (until);
