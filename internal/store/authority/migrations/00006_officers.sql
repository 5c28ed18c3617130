-- SPDX-License-Identifier: Apache-2.0
-- Applications for an appointment, and a way to the evidence of each device.

-- +goose Up
CREATE TABLE applications (
    nonce    TEXT PRIMARY KEY,  -- that the applicant's card signs
    expires  BIGINT NOT NULL,
    digest   BLOB NOT NULL DEFAULT x'', -- of key, evidence and appraisal policy; empty until one was accepted
    evidence BLOB NOT NULL DEFAULT x''  -- the attestation object
) STRICT;
CREATE INDEX applications_digest ON applications (digest);

CREATE INDEX orders_device ON orders (device, created);
