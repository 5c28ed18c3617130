-- SPDX-License-Identifier: Apache-2.0
-- Officers: what the ledger's leaves stand for, and what was signed and numbered.

-- +goose Up
ALTER TABLE leaves ADD COLUMN payload BLOB NOT NULL DEFAULT x''; -- what the entry's subject is the hash of
UPDATE leaves SET payload = coalesce((SELECT tbs FROM issuances WHERE leaf = leaves.id), x'');
ALTER TABLE leaves ADD COLUMN subject BLOB NOT NULL DEFAULT x''; -- the entry's, to find it by
UPDATE leaves SET subject = substr(entry, 35, 32); -- so far all entries are of version 1
CREATE INDEX leaves_subject ON leaves (subject);

-- Holds nothing: who appends to the ledger locks it, so that appends run one after
-- the other where transactions do not do so anyway.
CREATE TABLE ledger_lock (
    id BIGINT PRIMARY KEY
) STRICT;

CREATE TABLE checkpoints (
    size BIGINT PRIMARY KEY,
    note BLOB NOT NULL -- C2SP signed note
) STRICT;

CREATE TABLE bulletins (
    number BIGINT PRIMARY KEY,
    jws    BLOB NOT NULL
) STRICT;

ALTER TABLE invitations ADD COLUMN statement BLOB NOT NULL DEFAULT x''; -- the officer's, as compact JWS; empty: made without officers
