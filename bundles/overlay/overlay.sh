#!/bin/sh
# What three layers and a tmpfs look like from inside.
echo "root     $(sed -n 's/^\([^ ]*\) \/ \([^ ]*\) .*/\2/p' /proc/mounts | head -n 1), $(df -m / | sed -n '$s/^[^ ]* *\([0-9]*\) .*/\1/p') MiB to write to"
echo "motd     $(cat /etc/motd)"
echo "version  $(cat /app/version)"
[ -e /app/debug ] || echo "debug    removed by the topmost layer"
echo "changed here" >/app/version && echo "write    /app/version: $(cat /app/version)"
