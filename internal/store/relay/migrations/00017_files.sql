-- SPDX-License-Identifier: Apache-2.0
-- oldest: 16

-- +goose Up

-- A file that was deleted leaves its row for a while, to tell its owner why: ended is 0
-- for one that is there, 1 for one that all recipients have, 2 for one whose time was
-- over. litter says that its bytes may still lie about. Brought again it is in its next
-- life, which is a part of the name of its bytes: who deletes those of the former life
-- never touches the new ones.
ALTER TABLE blobs ADD COLUMN ended BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN litter BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN life BIGINT NOT NULL DEFAULT 0;

-- While it arrives: how many bytes have been persisted, what it takes to go on there, and
-- which process writes it, until when.
ALTER TABLE blobs ADD COLUMN have BIGINT NOT NULL DEFAULT 0;
ALTER TABLE blobs ADD COLUMN progress BLOB NOT NULL DEFAULT x'';
ALTER TABLE blobs ADD COLUMN holder BLOB NOT NULL DEFAULT x'';
ALTER TABLE blobs ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;

-- announced says that its recipients are known: those of blob_recipients. One who has the
-- file before that is there already.
ALTER TABLE blobs ADD COLUMN announced BIGINT NOT NULL DEFAULT 0;
CREATE TABLE blob_recipients (
    blob   TEXT   NOT NULL,
    device BIGINT NOT NULL,
    has    BIGINT NOT NULL,
    PRIMARY KEY (blob, device)
) STRICT, WITHOUT ROWID;

CREATE INDEX blobs_announced ON blobs (name) WHERE announced = 1 AND ended = 0;
CREATE INDEX blobs_litter ON blobs (name) WHERE litter = 1;
