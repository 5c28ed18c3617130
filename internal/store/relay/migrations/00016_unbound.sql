-- SPDX-License-Identifier: Apache-2.0
-- oldest: 15

-- +goose Up

-- Mailboxes point to messages without a constraint, as on PostgreSQL: for each message that
-- goes, SQLite would look through all mailboxes for pointers that are left.
-- SQLite: DROP VIEW mail;
-- SQLite: CREATE TABLE boxes (
-- SQLite:     device  BIGINT NOT NULL REFERENCES devices (id),
-- SQLite:     number  BIGINT NOT NULL,
-- SQLite:     message BIGINT NOT NULL,
-- SQLite:     PRIMARY KEY (device, number)
-- SQLite: ) STRICT, WITHOUT ROWID;
-- SQLite: INSERT INTO boxes SELECT device, number, message FROM mailbox;
-- SQLite: DROP TABLE mailbox;
-- SQLite: ALTER TABLE boxes RENAME TO mailbox;
-- SQLite: CREATE VIEW mail AS SELECT b.device, b.number, b.message, m.refs, m.kind, m.grp, m.epoch, m.sender, m.time, m.payload, m.incarnation, m.counter
-- SQLite:     FROM mailbox b JOIN messages m ON m.id = b.message;
