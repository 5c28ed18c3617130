-- SPDX-License-Identifier: Apache-2.0
-- oldest: 15

-- +goose Up

-- Which stores this one was before it was restored: gateways that saw one of those need
-- not be told of the restoration each by itself.
CREATE TABLE former_lives (
    id BLOB PRIMARY KEY
) STRICT;
