# Runs one PostgreSQL and ends it with the process that started it, also when that one is killed with SIGKILL.
#
# Standard input is a pipe whose other end only that process has, so the kernel closes it however the process ends. Unlike Linux's parent death
# signal this does not follow a thread, is not lost when the user is changed, works on macOS too, and leaves somebody to remove the scratch directory.
#
#   $1  scratch directory (socket, log, temporary data), removed at the end      $3  initdb
#   $2  directory in which the data is, or is made                               $4  postgres
#   $5  initdb's --no-sync, or nothing                                           …   postgres' options
scratch=$1 data=$2/data initdb=$3 postgres=$4 sync=$5
shift 5
exec 3<&0 </dev/null

# Made aside and moved, so that a half-made data directory is never taken for a whole one.
if [ ! -e "$data" ]; then
    rm -rf "$data.new"
    if ! "$initdb" -D "$data.new" --username=strongroom --auth=trust --encoding=UTF8 --locale=C $sync >&2 3<&- || ! mv "$data.new" "$data"; then
        rm -rf "$scratch"
        exit 1
    fi
fi

"$postgres" -D "$data" "$@" >&2 3<&- &
server=$!
(
    # A word means: stop in order. The end of the pipe means: at once, as in a crash, from which PostgreSQL recovers.
    if read -r _ <&3; then signal=INT; else signal=QUIT; fi
    # More than once: a shell starts its background programs with both signals ignored, so one that comes before PostgreSQL listens is lost.
    tries=0
    while kill -s "$signal" "$server"; do
        sleep 1
        tries=$((tries + 1))
        if [ "$tries" -ge 30 ]; then signal=QUIT; fi
    done
) 2>/dev/null &
watcher=$!
wait "$server"
status=$?
kill -s KILL "$watcher" 2>/dev/null
rm -rf "$scratch"
exit "$status"
