#!/usr/bin/env bash
# MLflow's tracking server: SQLite and local artifacts on loopback, unless the environment says otherwise.
#
#   bash mlflow/server.sh        # in the project's root, whose records it serves
#   MLFLOW_BACKEND=postgresql+psycopg2://flame@db/mlflow MLFLOW_ARTIFACTS=s3://bucket/mlflow bash mlflow/server.sh
#
# docs/mlflow-server.md lists the variables.
set -euo pipefail

python=${MLFLOW_PYTHON:-.venv/bin/python}
[[ -x $python ]] || python=python3
store=${MLFLOW_STORE:-$PWD/.flame/mlflow}
host=${MLFLOW_HOST:-127.0.0.1}
port=${MLFLOW_PORT:-5000}
mkdir -p "$store"
for variable in MLFLOW_BACKEND MLFLOW_AUTH_BACKEND; do
  case ${!variable:-} in
    postgres://* | postgresql://*)  # SQLAlchemy would look for psycopg 3
      echo "$variable names no driver for PostgreSQL; write postgresql+psycopg2://... (the extra postgres)" >&2
      exit 2
      ;;
  esac
done
# Its job runner serves what we do not use (evaluation of LLM applications), and would start six processes more.
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=${MLFLOW_SERVER_ENABLE_JOB_EXECUTION:-false}
export MLFLOW_DISABLE_TELEMETRY=${MLFLOW_DISABLE_TELEMETRY:-true}

# By one process at a time, and before the server's workers start: a store that was copied or moved with its project
# takes its artifacts along, and the schema is made or upgraded, as a whole or not at all.
exec 9>"$store/mlflow.lock"
flock 9
backend=$("$python" -m flame_core.tracking.prepared_store "$store" ${MLFLOW_BACKEND:+"$MLFLOW_BACKEND"}) || exit
exec 9>&-

arguments=(
  --host "$host" --port "$port" --workers "${MLFLOW_WORKERS:-1}"
  --backend-store-uri "$backend"
  --artifacts-destination "${MLFLOW_ARTIFACTS:-$store/artifacts}"
)
# By default loopback and private addresses are answered; a server with a name needs that name.
[[ -z ${MLFLOW_ALLOWED_HOSTS:-} ]] || arguments+=(--allowed-hosts "$MLFLOW_ALLOWED_HOSTS")
case ${MLFLOW_AUTH:-none} in
  none) ;;
  basic)
    : "${MLFLOW_FLASK_SERVER_SECRET_KEY:?basic auth needs a secret key that stays the same}"
    # The users' own database; MLflow would put it into the working directory.
    if [[ -z ${MLFLOW_AUTH_CONFIG_PATH:-} ]]; then
      export MLFLOW_AUTH_CONFIG_PATH=$store/basic_auth.ini
      [[ -e $MLFLOW_AUTH_CONFIG_PATH ]] || printf '%s\n' '[mlflow]' 'default_permission = READ' \
        "database_uri = ${MLFLOW_AUTH_BACKEND:-sqlite:///$store/basic_auth.db}" 'admin_username = admin' \
        >"$MLFLOW_AUTH_CONFIG_PATH"
    fi
    arguments+=(--app-name basic-auth)
    ;;
  *)
    echo "MLFLOW_AUTH=$MLFLOW_AUTH is unknown; it is basic or none" >&2
    exit 2
    ;;
esac
exec "$python" -m mlflow server "${arguments[@]}"
