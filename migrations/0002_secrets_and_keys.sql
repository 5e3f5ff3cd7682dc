-- Secrets complete (metadata, aliases, states of versions), projects' settings, manifests and tombstones of access rows, and what background work needs.
-- New columns of MACed tables hold their default in rows of the earlier layout: a row whose MAC is of that layout is refused where they do not.

ALTER TABLE projects
    ADD COLUMN state                 text    NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'shredded')),
    ADD COLUMN keep_versions         integer NOT NULL DEFAULT 100 CHECK (keep_versions BETWEEN 1 AND 10000),
    ADD COLUMN require_check_and_set boolean NOT NULL DEFAULT false,
    ADD COLUMN deletion_protection   boolean NOT NULL DEFAULT false,
    ADD COLUMN expiry_notice_seconds integer NOT NULL DEFAULT 604800 CHECK (expiry_notice_seconds BETWEEN 0 AND 31536000),
    ADD COLUMN max_secrets           integer CHECK (max_secrets > 0);

ALTER TABLE project_keys DROP CONSTRAINT project_keys_state_check;
ALTER TABLE project_keys ADD CONSTRAINT project_keys_state_check CHECK (state IN ('active', 'decrypt-only', 'destroyed'));
ALTER TABLE project_keys ADD COLUMN retired_at timestamptz; -- when it stopped being the active one

ALTER TABLE keyring_terms DROP CONSTRAINT keyring_terms_state_check;
ALTER TABLE keyring_terms ADD CONSTRAINT keyring_terms_state_check
    CHECK (state IN ('pre-active', 'active', 'decrypt-only', 'compromised', 'destroyed'));
ALTER TABLE keyring_terms ADD COLUMN retired_at timestamptz;
ALTER TABLE keyring_keys DROP CONSTRAINT keyring_keys_state_check;
ALTER TABLE keyring_keys ADD CONSTRAINT keyring_keys_state_check
    CHECK (state IN ('pre-active', 'active', 'decrypt-only', 'destroyed'));

ALTER TABLE secrets
    ADD COLUMN pending_version   bigint  CHECK (pending_version > 0),
    ADD COLUMN aliases           text    COLLATE "C" NOT NULL DEFAULT '', -- free ones, canonical: name=version, one a line, by name
    ADD COLUMN labels            text    COLLATE "C" NOT NULL DEFAULT '', -- canonical: key=value, one a line, by key
    ADD COLUMN owner             text    COLLATE "C",
    -- A caller's time: of years that every form of it can tell, the text of backups among them.
    ADD COLUMN expires_at        timestamptz CHECK (expires_at >= '1970-01-01 00:00:00+00' AND expires_at < '10000-01-01 00:00:00+00'),
    ADD COLUMN deletion_protected boolean NOT NULL DEFAULT false,
    ADD COLUMN keep_versions     integer CHECK (keep_versions BETWEEN 1 AND 10000), -- NULL: the project's
    ADD COLUMN oldest_version    bigint  NOT NULL DEFAULT 1 CHECK (oldest_version > 0), -- those below were pruned, unless an alias points at them
    ADD COLUMN skipped_versions  bigint  NOT NULL DEFAULT 0 CHECK (skipped_versions >= 0), -- numbers from oldest_version on that were given up: no version has them
    ADD COLUMN revision          bigint  NOT NULL DEFAULT 1 CHECK (revision > 0); -- counts the changes of this row
CREATE INDEX secrets_project ON secrets (project_id, id);
CREATE INDEX secrets_labels ON secrets USING gin (string_to_array(labels, E'\n')) WHERE labels <> '';
CREATE INDEX secrets_owner ON secrets (owner, path) WHERE owner IS NOT NULL;
CREATE INDEX secrets_expiry ON secrets (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE secret_versions ADD COLUMN state text NOT NULL DEFAULT 'live' CHECK (state IN ('live', 'deleted', 'destroyed'));

-- Which projects can concern a caller.
CREATE INDEX policies_principal ON policies (principal_key);

-- What is volatile about a secret: no MAC, nothing is decided by it.
CREATE TABLE secret_activity (
    secret_id         uuid PRIMARY KEY,
    last_read_at      timestamptz,
    expiry_noticed_at timestamptz, -- when the event before the expiry was left
    expired_at        timestamptz  -- when the event of the expiry was left
);

-- One row a scope: the instance (the nil id) and each project. It covers every access row of the scope, so that none can be deleted, brought back or
-- exchanged for an older one.
CREATE TABLE manifests (
    scope          uuid     PRIMARY KEY,
    epoch          bigint   NOT NULL CHECK (epoch > 0),
    entries        integer  NOT NULL CHECK (entries >= 0),
    root           bytea    NOT NULL, -- SHA-256 over table, key and MAC of each row, in order
    mac_generation integer  NOT NULL,
    mac_layout     smallint NOT NULL,
    mac            bytea    NOT NULL
);

-- What is gone for good: its rows are refused when they come back. Part of the scope's manifest.
CREATE TABLE tombstones (
    scope          uuid        NOT NULL,
    subject        uuid        NOT NULL, -- a secret's id, or a project's
    version        bigint      NOT NULL DEFAULT 0 CHECK (version >= 0), -- 0: all of it
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    PRIMARY KEY (scope, subject, version)
);

-- Work on keys, done in steps by whichever replica comes first. What it is is authenticated; how far it came is not, and only costs time when it is wrong.
CREATE TABLE rotations (
    id             uuid        PRIMARY KEY,
    kind           text        NOT NULL CHECK (kind IN ('root', 'term', 'project-key')),
    project_id     uuid,       -- of a project's key
    compromised    boolean     NOT NULL,
    author         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    stage          text        NOT NULL,
    cursor         uuid,
    done           bigint      NOT NULL DEFAULT 0,
    total          bigint      NOT NULL DEFAULT 0,
    failure        text,
    updated_at     timestamptz NOT NULL,
    finished_at    timestamptz
);
CREATE INDEX rotations_open ON rotations (created_at) WHERE finished_at IS NULL;

-- Running servers, for steps that all of them must have followed. Volatile; a row that lies only delays such a step, or has it wait for the next.
CREATE TABLE replicas (
    id             uuid        PRIMARY KEY,
    started_at     timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL,
    instance_epoch bigint      NOT NULL -- the manifest its keyring was read at
);

-- The outcomes of writes that carried an Idempotency-Key. No values: what is stored is what a put answers.
CREATE TABLE idempotency_keys (
    key            bytea       PRIMARY KEY, -- keyed hash of caller, route and key
    body           bytea       NOT NULL,    -- keyed hash of the request
    answer         text        NOT NULL,
    created_at     timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL
);
CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- What agents say they hold. Volatile, and only as true as the pod that says it.
CREATE TABLE deliveries (
    pod_uid     uuid        NOT NULL,
    path        text        COLLATE "C" NOT NULL,
    principal   text        NOT NULL,
    pod         text        NOT NULL,
    version     bigint      NOT NULL,
    reported_at timestamptz NOT NULL,
    PRIMARY KEY (pod_uid, path)
);
CREATE INDEX deliveries_path ON deliveries (path);
CREATE INDEX deliveries_age ON deliveries (reported_at);

-- Each restore of this database from a backup, and the first start after it: then agents may hold versions that the database does not know.
CREATE TABLE restores (
    id             uuid        PRIMARY KEY,
    taken_at       timestamptz NOT NULL, -- when the backup was taken
    backup_sha256  bytea       NOT NULL,
    restored_at    timestamptz NOT NULL,
    mac_generation integer     NOT NULL,
    mac_layout     smallint    NOT NULL,
    mac            bytea       NOT NULL,
    started_at     timestamptz -- when a server first started on it; a note, no MAC
);
