-- SPDX-License-Identifier: Apache-2.0
-- Requests for gateways' certificates that wait for officers.

-- +goose Up
CREATE TABLE gateway_requests (
    device   BLOB PRIMARY KEY, -- SHA-256 of the key
    change   TEXT NOT NULL,    -- the id of the decision
    names    TEXT NOT NULL,    -- separated by spaces
    csr      BLOB NOT NULL,
    evidence BLOB NOT NULL,    -- JSON; empty: none
    created  BIGINT NOT NULL
) STRICT;
