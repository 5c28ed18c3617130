-- SPDX-License-Identifier: Apache-2.0
-- A gateway's copy of its authority's record. Times are seconds since 1970. All
-- documents are kept as they were signed.

-- +goose Up
CREATE TABLE leaves (
    id      BIGINT PRIMARY KEY, -- from 0 without gaps
    entry   BLOB NOT NULL,
    payload BLOB NOT NULL,
    subject BLOB NOT NULL
) STRICT;
CREATE INDEX leaves_subject ON leaves (subject);

CREATE TABLE hashes ( -- golang.org/x/mod/sumdb/tlog's stored hashes
    id   BIGINT PRIMARY KEY,
    hash BLOB NOT NULL
) STRICT;

CREATE TABLE checkpoints (
    size BIGINT PRIMARY KEY,
    note BLOB NOT NULL
) STRICT;

CREATE TABLE manifests (
    number BIGINT PRIMARY KEY,
    jws    BLOB NOT NULL
) STRICT;

CREATE TABLE bulletins (
    number BIGINT PRIMARY KEY,
    jws    BLOB NOT NULL
) STRICT;

CREATE TABLE statements ( -- those that came by hand, or before the record could hold them
    hash BLOB PRIMARY KEY, -- SHA-256 of the JWS
    jws  BLOB NOT NULL,
    seen BIGINT NOT NULL
) STRICT;
