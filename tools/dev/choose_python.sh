#!/bin/sh
# Choose the OpenMMLab stack and the Python that builds its environment; called by the Makefile.
#
#   choose_python.sh [STACK] [PYTHON]
#
# prints one line, "STACK PYTHON" or "error SENTENCE" (the Makefile stops with the sentence).

stack=$1
demanded=$2
official_range='3.9-3.11'
onedl_range='3.10-3.13'

fail() {
    echo "error $1"
    exit 0
}

# Print "311 /path/to/python" for a command, nothing if it does not run (pyenv has shims for inactive versions). In an
# active virtual environment the path is that of the base Python.
look_at() {
    "$1" -c 'import sys
print("%d%02d %s" % (sys.version_info[0], sys.version_info[1], getattr(sys, "_base_executable", "") or sys.executable))' \
        2>/dev/null
}

supports() { # STACK VERSION
    case $1 in
    official) [ "$2" -ge 309 ] && [ "$2" -le 311 ] ;;
    onedl) [ "$2" -ge 310 ] && [ "$2" -le 313 ] ;;
    esac
}

# Print "STACK PYTHON" for the first command that runs and is supported by STACK.
choose() { # STACK COMMAND...
    wanted=$1
    shift
    for command in "$@"; do
        found=$(look_at "$command") || continue
        if supports "$wanted" "${found%% *}"; then
            echo "$wanted ${found#* }"
            return 0
        fi
    done
    return 1
}

# Print "python3 is Python 3.12" for the first command that runs.
first_that_runs() {
    for command in "$@"; do
        found=$(look_at "$command") || continue
        version=${found%% *}
        echo "$command is Python ${version%??}.$((1${version#?} - 100))"
        return 0
    done
    return 1
}

choose_official() { choose official ${demanded:-python3 python3.11 python3.10 python3.9}; }
choose_onedl() { choose onedl ${demanded:-python3 python3.12 python3.11 python3.10 python3.13}; }
seen=''
see() { seen=$(first_that_runs ${demanded:-python3 python3.13 python3.12}) || fail "${demanded:-python3} does not run: \
install Python $official_range, or name one with PYTHON=/path/to/python3"; }

case $stack in
official)
    choose_official && exit
    see
    fail "STACK=official needs Python $official_range, but $seen: name another one with PYTHON=/path/to/python3, or take STACK=onedl"
    ;;
onedl)
    choose_onedl && exit
    see
    fail "STACK=onedl needs Python $onedl_range, but $seen: name another one with PYTHON=/path/to/python3"
    ;;
'')
    # Use an existing environment, even if the Python that made it is gone.
    if [ -z "$demanded" ] && [ -e .venv/.complete ] && look_at .venv/bin/python >/dev/null; then
        echo 'official .venv/bin/python'
        exit
    fi
    choose_official && exit
    see
    choice=$(choose_onedl) || fail "mmnfn needs Python $official_range (or $onedl_range with the OneDL stack), but $seen: \
name another one with PYTHON=/path/to/python3"
    echo "$seen, which the official OpenMMLab stack ($official_range) does not support: taking the OneDL stack." >&2
    echo "$choice"
    ;;
*)
    fail "STACK=$stack is unknown: it is official or onedl"
    ;;
esac
