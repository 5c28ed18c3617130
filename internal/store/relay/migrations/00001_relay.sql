-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- A device that has connected at least once. id stands for the 32-byte device
-- id everywhere else: small keys are faster.
CREATE TABLE devices (
    id      BIGINT PRIMARY KEY,
    device  BLOB   NOT NULL UNIQUE,
    address TEXT   NOT NULL,
    chain   BLOB   NOT NULL,
    seen    BIGINT NOT NULL
) STRICT;
CREATE INDEX devices_address ON devices (address);

-- What changes with every message, in small rows: the sender's place in its
-- own sequence, and the mailbox's counters.
CREATE TABLE states (
    device      BIGINT PRIMARY KEY REFERENCES devices (id),
    incarnation BLOB   NOT NULL,
    counter     BIGINT NOT NULL,
    last        BIGINT NOT NULL,
    acked       BIGINT NOT NULL,
    held        BIGINT NOT NULL,
    bytes       BIGINT NOT NULL
) STRICT;

-- Every incarnation that ever was; none comes back.
CREATE TABLE incarnations (
    device      BIGINT NOT NULL REFERENCES devices (id),
    incarnation BLOB   NOT NULL,
    began       BIGINT NOT NULL,
    PRIMARY KEY (device, incarnation)
) STRICT, WITHOUT ROWID;

-- Hashes of each device's latest submissions: slot is counter modulo how many are kept.
CREATE TABLE submissions (
    device  BIGINT NOT NULL REFERENCES devices (id),
    slot    BIGINT NOT NULL,
    counter BIGINT NOT NULL,
    hash    BLOB   NOT NULL,
    PRIMARY KEY (device, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE groups (
    id       BIGINT PRIMARY KEY,
    group_id BLOB   NOT NULL UNIQUE,
    epoch    BIGINT NOT NULL,
    info     BLOB   NOT NULL
) STRICT;

CREATE TABLE group_records (
    grp   BIGINT NOT NULL REFERENCES groups (id),
    key   TEXT   NOT NULL,
    value BLOB   NOT NULL,
    PRIMARY KEY (grp, key)
) STRICT, WITHOUT ROWID;

-- A message is stored once; mailboxes point to it and refs counts them.
CREATE TABLE messages (
    id      BIGINT PRIMARY KEY,
    kind    BIGINT NOT NULL,
    grp     BIGINT NOT NULL REFERENCES groups (id),
    epoch   BIGINT NOT NULL,
    sender  BIGINT NOT NULL REFERENCES devices (id),
    time    BIGINT NOT NULL,
    refs    BIGINT NOT NULL,
    payload BLOB   NOT NULL
) STRICT;

CREATE TABLE mailbox (
    device  BIGINT NOT NULL REFERENCES devices (id),
    number  BIGINT NOT NULL,
    message BIGINT NOT NULL REFERENCES messages (id),
    PRIMARY KEY (device, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_packages (
    id          BIGINT  PRIMARY KEY,
    device      BIGINT  NOT NULL REFERENCES devices (id),
    suite       BIGINT  NOT NULL,
    last_resort BOOLEAN NOT NULL,
    expires     BIGINT  NOT NULL,
    package     BLOB    NOT NULL
) STRICT;
CREATE INDEX key_packages_device ON key_packages (device, suite, last_resort, id);

CREATE TABLE blobs (
    name     TEXT    PRIMARY KEY,
    id       BLOB    NOT NULL,
    grp      BIGINT  NOT NULL REFERENCES groups (id),
    size     BIGINT  NOT NULL,
    owner    BIGINT  NOT NULL REFERENCES devices (id),
    complete BOOLEAN NOT NULL,
    created  BIGINT  NOT NULL,
    expires  BIGINT  NOT NULL,
    UNIQUE (id, grp)
) STRICT;
CREATE INDEX blobs_expires ON blobs (expires);
CREATE INDEX blobs_owner ON blobs (owner);
