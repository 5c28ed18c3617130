-- SPDX-License-Identifier: Apache-2.0

-- +goose Up

-- Which devices stand in which groups' trees: who is suspended has his groups found
-- without a look at the others. Each row is written with the commit that makes it true.
CREATE TABLE group_members (
    device BIGINT NOT NULL REFERENCES devices (id),
    grp    BIGINT NOT NULL REFERENCES groups (id),
    PRIMARY KEY (device, grp)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_members_grp ON group_members (grp);

-- The members of groups from before are in their trees only, which the gateway reads
-- once for each: until then they are not listed.
ALTER TABLE groups ADD COLUMN listed BIGINT NOT NULL DEFAULT 1;
UPDATE groups SET listed = 0;
CREATE INDEX groups_unlisted ON groups (id) WHERE listed = 0;

-- PostgreSQL: ALTER TABLE group_members DROP CONSTRAINT group_members_device_fkey, DROP CONSTRAINT group_members_grp_fkey;
