# Starts ttc as a job on the head of a Ray cluster; `ttc submit` sends it along.
#
#   sh job.sh PYTHON FALLBACK DATABASE_VARIABLE TTC_ARGUMENT...
#
# PYTHON: the interpreter that has ttc; empty: the first of $TTC_PYTHON, FALLBACK, the one that cluster.yaml installs
# and python3 that has it. DATABASE_VARIABLE: the variable of this machine that holds the URL of the database; empty: the
# arguments or the sweep file say it. So a password stays in its variable: it never is an argument, which `ps` and Ray's
# table of jobs would show.

refuse() {
    echo "error: $1" >&2
    echo "    -> $2" >&2
    exit 2
}

at_home() {
    case $1 in "~/"*) echo "$HOME/${1#"~/"}" ;; *) echo "$1" ;; esac
}

has_ttc() {
    [ -n "$1" ] && "$1" -c 'import orchestrator.cli' >/dev/null 2>&1
}

wanted=$(at_home "$1") fallback=$2 variable=$3
shift 3

if [ -n "$wanted" ]; then
    python=$wanted
    if ! has_ttc "$python"; then
        why=$("$python" -c 'import orchestrator.cli' 2>&1 | tail -n 1)
        refuse "$python on the head ($(uname -n)) cannot import ttc: $why" \
            "name the interpreter that has ttc there: --python PATH; or install ttc there"
    fi
else
    python=
    for candidate in "$(at_home "${TTC_PYTHON-}")" "$fallback" "$HOME/ttc/.venv/bin/python" python3; do
        if [ -z "$python" ] && has_ttc "$candidate"; then python=$candidate; fi
    done
    [ -n "$python" ] || refuse "no interpreter on the head ($(uname -n)) was found that has ttc" \
        "say where it is: --python PATH, or TTC_PYTHON in the environment of \`ray start\`"
fi

if [ -n "$variable" ]; then
    TTC_DATABASE_URL=$(printenv "$variable")
    export TTC_DATABASE_URL
    case $TTC_DATABASE_URL in
    "")
        refuse "no database: the variable $variable is not set on the head ($(uname -n))" \
            "set it in the environment of \`ray start\` on the head, or name a database without a password: --db URL"
        ;;
    sqlite*:///[!/]*) is_lost=yes ;;
    *://* | /*) is_lost= ;;
    *) is_lost=yes ;;
    esac
    [ -z "$is_lost" ] || refuse "$variable names a SQLite file by a relative path, and the folder of a job is deleted" \
        "name it by its absolute path: sqlite:////DIRECTORY/ttc.db"
fi

# What Ray leaves between SIGTERM and SIGKILL when the job is to stop; tables as wide as a screen.
export TTC_STOP_WINDOW_S="${RAY_JOB_STOP_WAIT_TIME_S:-3}"
export COLUMNS="${COLUMNS:-140}"
echo "ttc runs with $python on $(uname -n)"
exec "$python" -c 'from orchestrator.cli import main; main()' "$@"
