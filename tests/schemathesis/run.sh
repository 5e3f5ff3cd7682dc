#!/usr/bin/env bash
# Tries the API by its OpenAPI document, with requests that fit it and requests that do not, against a server of its own. No answer may be a server's
# error, or one that the document does not describe; a request that does not fit must be refused, and one without a credential too.
# The seed is fixed, so that a run that failed fails again. It needs Python 3 with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ -z "${STRONGROOM_URL:-}" ]; then
  exec cargo run --quiet --locked -p strongroom-tests --example with-server -- "$0" "$@"
fi

venv=target/schemathesis/venv
if ! cmp --silent tests/schemathesis/requirements.txt "$venv/requirements.txt"; then
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/schemathesis/requirements.txt
  cp tests/schemathesis/requirements.txt "$venv/requirements.txt"
fi

cd target/schemathesis
exec venv/bin/schemathesis --config-file ../../tests/schemathesis/schemathesis.toml run "$STRONGROOM_URL/api/v1/openapi.json" \
  --tls-verify "$STRONGROOM_CA_FILE" --header "Authorization: Bearer $STRONGROOM_TOKEN" \
  --phases examples,coverage,fuzzing --mode all --max-examples 25 --seed 20261124 --no-shrink --workers 2 \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,ignored_auth,unsupported_method \
  --suppress-health-check all --warnings off "$@"
