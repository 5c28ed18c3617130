-- SPDX-License-Identifier: Apache-2.0
-- Times are seconds since 1970. Certificates and TBS are DER. A status is one of
-- RFC 8555's words (Section 7.1.6).

-- +goose Up
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE people (
    address   TEXT PRIMARY KEY,
    name      TEXT NOT NULL,
    unit      TEXT NOT NULL,
    clearance BLOB NOT NULL, -- RFC 5755 Clearance; empty: none
    changed   BIGINT NOT NULL
) STRICT;

CREATE TABLE invitations (
    kid     TEXT PRIMARY KEY,
    key     BLOB NOT NULL, -- erased when used or expired
    address TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    used    BIGINT NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE accounts (
    id         BIGINT PRIMARY KEY,
    thumbprint TEXT NOT NULL UNIQUE, -- RFC 7638
    jwk        BLOB NOT NULL,
    address    TEXT NOT NULL,
    kid        TEXT NOT NULL UNIQUE REFERENCES invitations (kid),
    status     TEXT NOT NULL,
    device     BLOB NOT NULL, -- empty until the first evidence is accepted
    created    BIGINT NOT NULL
) STRICT;
CREATE INDEX accounts_device ON accounts (device);

CREATE TABLE nonces ( -- those that were used, until they would have expired
    nonce   BLOB PRIMARY KEY,
    expires BIGINT NOT NULL
) STRICT;
CREATE INDEX nonces_expires ON nonces (expires);

CREATE TABLE orders (
    id        TEXT PRIMARY KEY,
    account   BIGINT NOT NULL REFERENCES accounts (id),
    device    BLOB NOT NULL,
    profile   TEXT NOT NULL,
    approvals BIGINT NOT NULL, -- how many the profile asks for
    status    TEXT NOT NULL,
    reason    TEXT NOT NULL DEFAULT '', -- why it is invalid
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    csr       BLOB NOT NULL DEFAULT x''
) STRICT;
CREATE INDEX orders_account ON orders (account);
CREATE INDEX orders_status ON orders (status, expires);

CREATE TABLE authorizations (
    id        TEXT PRIMARY KEY,
    order_id  TEXT NOT NULL UNIQUE REFERENCES orders (id),
    token     TEXT NOT NULL UNIQUE,
    status    TEXT NOT NULL,
    reason    TEXT NOT NULL DEFAULT '',
    expires   BIGINT NOT NULL,
    validated BIGINT NOT NULL DEFAULT 0,
    evidence  BLOB NOT NULL DEFAULT x'', -- the attestation object as it came
    result    BLOB NOT NULL DEFAULT x''  -- the appraisal's result as JSON
) STRICT;

-- One row from the moment the ledger holds the leaf. certificate is empty until
-- the HSM has signed tbs; a row without it is finished after a crash.
CREATE TABLE issuances (
    id          BIGINT PRIMARY KEY,
    ref         TEXT NOT NULL UNIQUE, -- "order:ID", or "gateway:" and a random id
    kind        TEXT NOT NULL,        -- "device", "gateway", "server"
    subject     TEXT NOT NULL,        -- address or names
    request     BLOB NOT NULL,        -- SHA-256 of the CSR
    serial      BLOB NOT NULL UNIQUE,
    leaf        BIGINT NOT NULL UNIQUE,
    tbs         BLOB NOT NULL,
    certificate BLOB NOT NULL DEFAULT x'',
    created     BIGINT NOT NULL,
    not_after   BIGINT NOT NULL
) STRICT;
CREATE INDEX issuances_request ON issuances (request);

CREATE TABLE leaves (
    id     BIGINT PRIMARY KEY, -- from 0 without gaps
    entry  BLOB NOT NULL
) STRICT;

CREATE TABLE hashes ( -- golang.org/x/mod/sumdb/tlog's stored hashes
    id   BIGINT PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;
