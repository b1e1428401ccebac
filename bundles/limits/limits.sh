#!/bin/sh
# What the limits of config.json look like from inside, and what they do.
cg=/sys/fs/cgroup
value() { sed -n "s/^$2 //p" "$cg/$1" 2>/dev/null; }
uptime() { sed 's/\([0-9]*\)\.\([0-9]*\) .*/\1\2/' /proc/uptime; }

# A hundred sleeps, of which the limit lets a few start.
started=$( (i=0; while [ $i -lt 100 ]; do sleep 1 >/dev/null 2>&1 & echo; i=$((i + 1)); done) 2>/dev/null | wc -l)
echo "pids    pids.max $(cat $cg/pids.max): $started of 100 processes started"

# A second of work.
used=$(value cpu.stat usage_usec) from=$(uptime)
{ timeout 1 sh -c "while :; do :; done"; } 2>/dev/null
used=$(($(value cpu.stat usage_usec) - used)) from=$(($(uptime) - from))
echo "cpu     cpu.max $(cat $cg/cpu.max): a busy loop got $((used / from / 100)) % of one CPU"

# More memory than there is; the kernel ends the program that asks for it.
{ dd if=/dev/zero of=/dev/null bs=100M count=1; } 2>/dev/null
echo "memory  memory.max $(cat $cg/memory.max): 100 MiB asked for, status $?, oom_kill $(value memory.events oom_kill)"
