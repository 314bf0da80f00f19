#!/bin/sh
# Make the server's data the first time, then run the server. Passwords from outside, no password on the pod's own socket.
set -eu
if [ ! -d "$PGDATA" ]; then
	rm -rf "$PGDATA.new"
	initdb --pgdata="$PGDATA.new" --username=postgres --auth-local=trust --auth-host=scram-sha-256 \
		--encoding=UTF8 --locale=C.UTF-8 --no-instructions
	echo 'host all all all scram-sha-256' >>"$PGDATA.new/pg_hba.conf"
	# Last, so that a container that was killed before starts anew.
	mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c max_connections=200
