-- Every row that decides access or integrity carries a MAC (mac_generation, mac_layout, mac): see ARCHITECTURE.md, "Rows nobody may trust".

CREATE TABLE instance (
    singleton        boolean     PRIMARY KEY DEFAULT true CHECK (singleton),
    id               uuid        NOT NULL,
    name             text        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('dev', 'production')),
    created_at       timestamptz NOT NULL,
    admin_claimed_at timestamptz,
    keyring_mac_key  bytea       NOT NULL, -- sealed under the root key; MACs this row and the keyring's
    mac_generation   integer     NOT NULL,
    mac_layout       smallint    NOT NULL,
    mac              bytea       NOT NULL
);

CREATE TABLE keyring_terms (
    term           integer     PRIMARY KEY CHECK (term > 0),
    state          text        NOT NULL CHECK (state IN ('active', 'decrypt-only', 'compromised', 'destroyed')),
    wrapped        bytea       NOT NULL, -- sealed under the root key
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);
CREATE UNIQUE INDEX keyring_terms_one_active ON keyring_terms ((true)) WHERE state = 'active';

CREATE TABLE keyring_keys (
    purpose        text        NOT NULL CHECK (purpose IN ('row-mac', 'token', 'session', 'audit')),
    generation     integer     NOT NULL CHECK (generation > 0),
    term           integer     NOT NULL REFERENCES keyring_terms (term),
    state          text        NOT NULL CHECK (state IN ('active', 'decrypt-only')),
    wrapped        bytea       NOT NULL, -- sealed under the term
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    PRIMARY KEY (purpose, generation)
);
CREATE UNIQUE INDEX keyring_keys_one_active ON keyring_keys (purpose) WHERE state = 'active';

CREATE TABLE projects (
    id             uuid        PRIMARY KEY,
    name           text        COLLATE "C" NOT NULL CONSTRAINT projects_name_key UNIQUE,
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);

CREATE TABLE project_keys (
    project_id     uuid        NOT NULL REFERENCES projects (id),
    generation     integer     NOT NULL CHECK (generation > 0),
    term           integer     NOT NULL REFERENCES keyring_terms (term),
    state          text        NOT NULL CHECK (state IN ('active', 'decrypt-only')),
    wrapped        bytea       NOT NULL, -- sealed under the term
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    PRIMARY KEY (project_id, generation)
);
CREATE UNIQUE INDEX project_keys_one_active ON project_keys (project_id) WHERE state = 'active';

CREATE TABLE secrets (
    id               uuid        PRIMARY KEY,
    project_id       uuid        NOT NULL REFERENCES projects (id),
    path             text        COLLATE "C" NOT NULL CONSTRAINT secrets_path_key UNIQUE,
    state            text        NOT NULL CHECK (state IN ('live', 'deleted')),
    latest_version   bigint      NOT NULL CHECK (latest_version > 0),
    current_version  bigint      NOT NULL CHECK (current_version > 0),
    previous_version bigint,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    mac_generation   integer     NOT NULL,
    mac_layout       smallint    NOT NULL,
    mac              bytea       NOT NULL
);

CREATE TABLE secret_versions (
    secret_id              uuid        NOT NULL REFERENCES secrets (id),
    version                bigint      NOT NULL CHECK (version > 0),
    author                 text        NOT NULL,
    reason                 text,
    media_type             text        NOT NULL,
    created_at             timestamptz NOT NULL,
    project_key_generation integer     NOT NULL,
    wrapped_key            bytea       NOT NULL, -- sealed under the project key
    sealed_value           bytea       NOT NULL, -- sealed under the data key; authenticates itself, so the MAC leaves it out
    mac_generation         integer     NOT NULL,
    mac_layout             smallint    NOT NULL,
    mac                    bytea       NOT NULL,
    PRIMARY KEY (secret_id, version)
);
-- Sealed bytes do not compress.
ALTER TABLE secret_versions ALTER COLUMN sealed_value SET STORAGE EXTERNAL;

CREATE TABLE clusters (
    id             uuid        PRIMARY KEY,
    name           text        COLLATE "C" NOT NULL CONSTRAINT clusters_name_key UNIQUE,
    issuer         text        COLLATE "C" NOT NULL CONSTRAINT clusters_issuer_key UNIQUE,
    trust          text        NOT NULL, -- canonical JSON
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);

-- Names of clusters are never reused: roles name clusters by name.
CREATE TABLE cluster_names (
    name           text        COLLATE "C" PRIMARY KEY,
    retired_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);

CREATE TABLE roles (
    id             uuid        PRIMARY KEY,
    project_id     uuid        NOT NULL REFERENCES projects (id),
    name           text        COLLATE "C" NOT NULL,
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    CONSTRAINT roles_name_key UNIQUE (project_id, name)
);

CREATE TABLE role_members (
    role_id        uuid     NOT NULL REFERENCES roles (id) ON DELETE CASCADE,
    pattern        text     COLLATE "C" NOT NULL,
    mac_generation integer  NOT NULL,
    mac_layout     smallint NOT NULL,
    mac            bytea    NOT NULL,
    PRIMARY KEY (role_id, pattern)
);
CREATE INDEX role_members_pattern ON role_members (pattern);

CREATE TABLE grants (
    id             uuid        PRIMARY KEY,
    project_id     uuid        REFERENCES projects (id), -- NULL: the instance
    principal      text        COLLATE "C" NOT NULL,
    actions        text        NOT NULL, -- names joined by commas, in the order of the permission model
    scope          text        COLLATE "C" NOT NULL,
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);
CREATE UNIQUE INDEX grants_same_key ON grants (coalesce(project_id, '00000000-0000-0000-0000-000000000000'), principal, actions, scope);
CREATE INDEX grants_principal ON grants (principal);

CREATE TABLE policies (
    id             uuid        PRIMARY KEY,
    project_id     uuid        NOT NULL REFERENCES projects (id),
    name           text        COLLATE "C" NOT NULL,
    text           text        NOT NULL,
    principal_key  text        COLLATE "C", -- NULL: can concern anyone
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    CONSTRAINT policies_name_key UNIQUE (project_id, name)
);

CREATE TABLE tokens (
    id             uuid        PRIMARY KEY,
    generation     integer     NOT NULL,
    hash           bytea       NOT NULL CONSTRAINT tokens_hash_key UNIQUE, -- keyed
    principal      text        NOT NULL,
    expires_at     timestamptz NOT NULL,
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);

-- Bumped by each change of an access row (projects, clusters, roles, grants, policies, tokens), never by writing secrets.
CREATE TABLE access_revision (
    singleton      boolean  PRIMARY KEY DEFAULT true CHECK (singleton),
    revision       bigint   NOT NULL,
    mac_generation integer  NOT NULL,
    mac_layout     smallint NOT NULL,
    mac            bytea    NOT NULL
);

CREATE TABLE audit_events (
    id             uuid        PRIMARY KEY, -- version 7: in the order of time
    at             timestamptz NOT NULL,
    request_id     uuid        NOT NULL,
    actor          text,
    actor_pod      text,
    actor_pod_uid  uuid,
    action         text        NOT NULL,
    resource       text,
    version        bigint,
    decision       text        NOT NULL,
    policies       text        NOT NULL, -- joined by commas
    outcome        text        NOT NULL,
    source         text,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    -- Given by the linker, once the event is committed.
    chain          uuid,
    sequence       bigint,
    chain_hash     bytea
);
CREATE INDEX audit_events_at ON audit_events (at);
CREATE INDEX audit_events_unlinked ON audit_events (id) WHERE sequence IS NULL;
