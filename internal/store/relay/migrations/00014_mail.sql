-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- What is in mailboxes, in whatever rows it lies.
CREATE VIEW mail AS SELECT b.device, b.number, b.message, m.refs, m.kind, m.grp, m.epoch, m.sender, m.time, m.payload, m.incarnation, m.counter
    FROM mailbox b JOIN messages m ON m.id = b.message;

-- On PostgreSQL a message for a single mailbox lies in the row of that, and hashes of
-- submissions lie together in rows as they came.
-- PostgreSQL: DROP VIEW mail;
-- PostgreSQL: ALTER TABLE mailbox ALTER message DROP NOT NULL;
-- PostgreSQL: ALTER TABLE mailbox ADD kind BIGINT, ADD grp BIGINT, ADD epoch BIGINT, ADD sender BIGINT, ADD time BIGINT, ADD counter BIGINT;
-- PostgreSQL: ALTER TABLE mailbox ADD payload BLOB, ADD incarnation BLOB;
-- PostgreSQL: ALTER TABLE mailbox ADD CHECK ((message IS NULL) = (payload IS NOT NULL));
-- PostgreSQL: CREATE VIEW mail AS SELECT b.device, b.number, coalesce(b.message, 0) AS message, coalesce(m.refs, 1) AS refs,
-- PostgreSQL:     coalesce(b.kind, m.kind) AS kind, coalesce(b.grp, m.grp) AS grp, coalesce(b.epoch, m.epoch) AS epoch,
-- PostgreSQL:     coalesce(b.sender, m.sender) AS sender, coalesce(b.time, m.time) AS time, coalesce(b.payload, m.payload) AS payload,
-- PostgreSQL:     coalesce(b.incarnation, m.incarnation) AS incarnation, coalesce(b.counter, m.counter) AS counter
-- PostgreSQL:     FROM mailbox b LEFT JOIN messages m ON m.id = b.message;
-- PostgreSQL: CREATE TABLE marks (device BIGINT NOT NULL, first BIGINT NOT NULL, hashes BLOB NOT NULL, PRIMARY KEY (device, first));
-- PostgreSQL: INSERT INTO marks (device, first, hashes) SELECT device, counter, hash FROM submissions;
-- PostgreSQL: DROP TABLE submissions;
