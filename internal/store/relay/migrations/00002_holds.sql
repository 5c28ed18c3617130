-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- What is kept from a device: 0 nothing, 1 quarantined, 2 purged.
ALTER TABLE states ADD COLUMN hold BIGINT NOT NULL DEFAULT 0;

-- By which submission a message came: its sender is told so if nobody fetches it.
ALTER TABLE messages ADD COLUMN incarnation BLOB NOT NULL DEFAULT x'';
ALTER TABLE messages ADD COLUMN counter BIGINT NOT NULL DEFAULT 0;
