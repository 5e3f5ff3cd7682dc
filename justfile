# What there is to run in this repository. `just` alone lists it.

set shell := ["bash", "-euo", "pipefail", "-c"]

[private]
default:
    @just --list --unsorted

# Strongroom on this machine with nothing set up: server, PostgreSQL, stand-in cluster, agent. Ctrl-C ends it.
dev *arguments:
    cargo run -- dev {{ arguments }}

# Everything that must pass before a commit; what `.ci/run` does without Go and without a cluster.
check: format-check lint deny test test-api

# Format the code.
format:
    cargo fmt --all

# Is the code formatted?
format-check:
    cargo fmt --all --check

# Clippy, warnings denied; the command line program also as it is released, without `dev`.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo clippy -p strongroom-tests --test cluster --test kms --test format --test drill --locked -- -D warnings
    cargo clippy -p strongroom-cli --no-default-features --locked -- -D warnings

# Licences, sources, and the crates' directions. Not advisories, whose database must be fetched: that belongs to a release.
deny:
    cargo deny --log-level error --locked check bans licenses sources

# Crates that are in the tree in more than one version.
duplicates:
    cargo deny --hide-inclusion-graph check bans

# Dependencies that nothing uses.
unused:
    cargo machete

# All tests that need neither Go nor a cluster; they start their own PostgreSQL.
test *arguments:
    cargo test --workspace --locked {{ arguments }}

# The KMS suite, with a real plugin: needs Go.
test-kms *arguments:
    cargo test -p strongroom-tests --test kms --locked {{ arguments }}
# Fuzz one target: envelope, session, token, share, path, principal, payload or put_secret; a minute, or as `-max_total_time` says. Needs nightly and
# cargo-fuzz. What it finds interesting stays in fuzz/corpus, which the ordinary tests replay: commit only what `fuzz-minimize` leaves.
fuzz target *arguments="-max_total_time=60":
    cargo +nightly fuzz run {{ target }} -- {{ arguments }}

# Leave of a target's corpus the smallest set that reaches as much.
fuzz-minimize target:
    cargo +nightly fuzz cmin {{ target }}

# The API tried by its own document: needs Python 3 with venv.
test-api *arguments:
    tests/schemathesis/run.sh {{ arguments }}

# The cluster suite: needs a KUBECONFIG.
test-cluster *arguments:
    cargo test -p strongroom-tests --test cluster --locked {{ arguments }}

# The documented format, read by docs/format/read_backup.py. Makes a virtual environment of Python with `cryptography` where there is none.
test-format *arguments:
    .ci/with-python-cryptography cargo test -p strongroom-tests --test format --locked {{ arguments }}

# The recovery drill: a lost database, recovered to a point in time and from a backup. Prints what was lost and how long it took.
drill *arguments:
    cargo test -p strongroom-tests --test drill --locked -- --nocapture --test-threads 1 {{ arguments }}

# Write the offline data of the checked queries (.sqlx) anew, against a private PostgreSQL with all migrations. Needs psql.
prepare-sqlx:
    cargo run --quiet -p strongroom-local --example with-postgres -- just _prepare-sqlx

# The path must be absolute: each crate is compiled in its own directory. Touched, because cargo does not see that the database changed.
_prepare-sqlx:
    for migration in migrations/*.sql; do psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --file "$migration" "$DATABASE_URL"; done
    mkdir -p .sqlx && rm -f .sqlx/query-*.json
    touch store/src/lib.rs
    SQLX_OFFLINE_DIR="$PWD/.sqlx" cargo --config 'env.SQLX_OFFLINE.value="false"' check -p strongroom-store --all-targets

# Is the committed offline data what `prepare-sqlx` writes?
check-sqlx: prepare-sqlx
    git diff --exit-code --stat -- .sqlx
    test -z "$(git status --porcelain -- .sqlx)"

# Look at changed snapshots. Needs cargo-insta.
review:
    cargo insta review --workspace

# Container images `strongroom/{server,injector,agent}:trial`.
images *arguments:
    deploy/build-images.sh {{ arguments }}
