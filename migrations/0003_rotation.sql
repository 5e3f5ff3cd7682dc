-- Rotation of keys: which key a rotation makes, keys that may be known to somebody, scopes whose rows wait for an operator's word, and the removal of a
-- shredded project.

ALTER TABLE keyring_keys DROP CONSTRAINT keyring_keys_state_check;
ALTER TABLE keyring_keys ADD CONSTRAINT keyring_keys_state_check
    CHECK (state IN ('pre-active', 'active', 'decrypt-only', 'compromised', 'destroyed'));

-- The term or generation that a rotation makes is part of what it is: a finished one that is brought back finds its key made, and does nothing.
ALTER TABLE rotations
    ADD COLUMN target integer NOT NULL DEFAULT 0,
    ADD COLUMN accept_unanchored boolean NOT NULL DEFAULT false,
    ADD COLUMN epoch bigint; -- volatile: the instance's manifest that every replica must have followed before the next stage
ALTER TABLE rotations DROP CONSTRAINT rotations_kind_check;
ALTER TABLE rotations ADD CONSTRAINT rotations_kind_check CHECK (kind IN ('root', 'term', 'project-key', 'shred'));
CREATE UNIQUE INDEX rotations_one_open ON rotations (kind, coalesce(project_id, '00000000-0000-0000-0000-000000000000')) WHERE finished_at IS NULL;

-- Scopes whose rows were others than the anchor says when a term was found to be compromised. Part of the instance's manifest.
CREATE TABLE quarantines (
    scope          uuid        PRIMARY KEY,
    root           bytea       NOT NULL, -- of the manifest that waits for an operator's word
    epoch          bigint      NOT NULL, -- the highest that anybody knew of: what is confirmed goes on beyond it
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);

-- While a term that may be known to somebody is replaced: the key that authenticates the keyring's rows next, sealed under the root key.
ALTER TABLE instance ADD COLUMN next_keyring_mac_key bytea;

CREATE INDEX project_keys_term ON project_keys (term) WHERE state <> 'destroyed';
