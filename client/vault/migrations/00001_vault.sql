-- +goose Up
CREATE TABLE recipient (
    id BLOB NOT NULL PRIMARY KEY,
    version BIGINT NOT NULL,
    curve TEXT NOT NULL,
    ephemeral BLOB NOT NULL,
    wrapped BLOB NOT NULL
) STRICT;

CREATE TABLE cell (
    tbl TEXT NOT NULL,
    parent BLOB NOT NULL,
    row BLOB NOT NULL,
    version BIGINT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (tbl, parent, row)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE cell;
DROP TABLE recipient;
