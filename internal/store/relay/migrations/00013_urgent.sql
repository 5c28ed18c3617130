-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Where in a mailbox urgent content lies: to be found without looking at the rest. A row
-- may outlive its mail for a while, and other mail may have its number by then.
CREATE TABLE urgent (
    device     BIGINT NOT NULL,
    precedence BIGINT NOT NULL,
    number     BIGINT NOT NULL,
    PRIMARY KEY (device, precedence, number)
) STRICT, WITHOUT ROWID;
