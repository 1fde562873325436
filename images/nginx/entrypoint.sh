#!/bin/sh
# Starts nginx as a proxy that passes every request to $BACKEND_HOST (host:port).
set -eu
# Process 1 is deaf to what it has not asked for; nginx sees to itself.
trap 'exit 0' TERM
: "${BACKEND_HOST:?set it to the host:port that requests go to}"

cat > /etc/nginx/nginx.conf <<EOF
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr warn;
events { worker_connections 512; }
http {
    access_log /dev/stdout;
    server {
        listen 80;
        location / {
            proxy_pass http://$BACKEND_HOST;
            proxy_set_header Host \$host;
            proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
        }
    }
}
EOF
exec /usr/sbin/nginx -e stderr -g 'daemon off;'
