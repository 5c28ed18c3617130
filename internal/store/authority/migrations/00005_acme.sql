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
    state  BLOB NOT NULL,             -- SHA-256 over what it lists
    until  BIGINT NOT NULL,
    der    BLOB NOT NULL DEFAULT x''  -- empty until the token has signed
) STRICT;

CREATE TABLE ocsp_responses (
    id    BLOB PRIMARY KEY, -- hash algorithm and serial number
    state BLOB NOT NULL,    -- what it says, to find out whether that still holds
    until BIGINT NOT NULL,
    der   BLOB NOT NULL
) STRICT;
CREATE INDEX ocsp_responses_until ON ocsp_responses (until);
