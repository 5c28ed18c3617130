-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Which journal belongs to this database, and what of it the database has. Without
-- a row there is none.
CREATE TABLE journal (
    one   BIGINT PRIMARY KEY CHECK (one = 1),
    id    BLOB   NOT NULL,
    begun BIGINT NOT NULL, -- 1 when the journal has its first file
    heavy BIGINT NOT NULL,
    mail  BIGINT NOT NULL,
    part  BIGINT NOT NULL,
    light BIGINT NOT NULL
) STRICT;

-- Hashes of each device's latest submissions, 32 in a row: id is the device's times
-- 64 plus base modulo 33, and base is the first counter's, less one, divided by 32.
CREATE TABLE recent (
    id     BIGINT PRIMARY KEY,
    base   BIGINT NOT NULL,
    hashes BLOB   NOT NULL
) STRICT;
