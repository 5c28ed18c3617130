-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Which store this is. It is another one after each restore: floor is the number
-- behind which mailboxes that are new begin, and beat counts what is noted outside.
CREATE TABLE lives (
    one   BIGINT PRIMARY KEY CHECK (one = 1),
    id    BLOB   NOT NULL,
    beat  BIGINT NOT NULL,
    floor BIGINT NOT NULL
) STRICT;
