#!/bin/bash
# Checks the machine itself: what it offers to tests, what it takes in and gives
# back, and that nothing of it stays. About a minute and a half; root.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit
VM=$PWD/vm
work=$(mktemp -d)
export VM_NAME=selftest-$$
cleanup() { "$VM" down; rm -rf "$work"; }
trap cleanup EXIT
passed=0 failed=0
ok() { # NAME CMD...: CMD succeeds
  local name=$1 out; shift
  if out=$("$@" 2>&1); then passed=$((passed + 1)); else
    failed=$((failed + 1))
    printf 'not ok: %s\n%s\n' "$name" "$out"
  fi
}
in_vm() { "$VM" exec --timeout 120 -- sh -ec "$1"; }
status_of() { # STATUS CMD...
  local want=$1 rc=0; shift
  "$@" > "$work/stdout" 2> "$work/stderr" || rc=$?
  [[ $rc == "$want" ]] || { echo "status $rc"; cat "$work/stderr"; false; }
}
left() { # MACHINE: its directory, and processes that name it or stand in it
  ls -d "$cache/run/$1"* 2> /dev/null
  grep -lsF -f <(echo "$cache/run/$1") /proc/[0-9]*/cmdline
  ls -l /proc/[0-9]*/cwd 2> /dev/null | grep -F "$cache/run/$1"
}
cache=${HUSK_CACHE:-$(cd ../.. && pwd)/.cache}/vm

mkdir "$work/in" "$work/out.d"
echo hello > "$work/in/file"
cp /bin/true "$work/in/prog"
printf '#!/bin/sh\necho ran "$@"\n' > "$work/in/script"
chmod +x "$work/in/script"

"$VM" build || exit
start=$SECONDS
"$VM" up --share "$work/in:/in" --share "$work/out.d:/out:rw" || exit
echo "up in $((SECONDS - start)) s"
ok 'the check for what is left sees a machine' test "$(left "$VM_NAME" | wc -l)" -ge 3

# The machine.
ok 'systemd runs, no unit failed' in_vm '[ "$(systemctl is-system-running)" = running ]'
ok 'cgroup2 alone, at /sys/fs/cgroup' in_vm '[ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; ! grep -q " cgroup " /proc/mounts'
ok 'every controller' in_vm 'for c in cpu cpuset io memory pids hugetlb rdma misc; do grep -qw $c /sys/fs/cgroup/cgroup.controllers; done'
ok 'a limit of each kind can be set and holds' in_vm 'cd /sys/fs/cgroup; echo "+cpu +cpuset +io +memory +pids +hugetlb" > cgroup.subtree_control
  mkdir t; cd t; echo 8M > memory.max; echo 0 > memory.swap.max; echo "50000 100000" > cpu.max; echo 0 > cpuset.cpus
  echo "254:0 wbps=1048576" > io.max; echo 0 > hugetlb.2MB.max; echo 3 > pids.max; [ "$(cat memory.max)" = 8388608 ]
  ! sh -c "echo \$\$ > cgroup.procs; exec tail /dev/zero"; [ "$(sed -n "s/oom_kill //p" memory.events)" = 1 ]; cd ..; rmdir t'
ok 'kernel has overlay lowerdir+ (6.5)' in_vm '[ "$(printf "6.5\n%s\n" "$(uname -r)" | sort -V | head -1)" = 6.5 ]'
ok 'two CPUs' in_vm '[ "$(nproc)" = 2 ]'
ok 'every capability' in_vm '[ $(sed -n "s/CapEff:\t//p" /proc/self/status) = $(sed -n "s/CapBnd:\t//p" /proc/self/status) ]; ulimit -Hn 1000000; ulimit -l unlimited'
ok 'overlay on the disk and on tmpfs, over a shared directory' in_vm 'for d in /root /tmp; do mkdir -p $d/o/u $d/o/w $d/o/m
  mount -t overlay -o lowerdir=/in,upperdir=$d/o/u,workdir=$d/o/w o $d/o/m; echo x > $d/o/m/file; rm $d/o/m/script; [ "$(cat $d/o/u/file)" = x ]; [ -c $d/o/u/script ]; umount $d/o/m; done'
ok '/tmp is a tmpfs' in_vm '[ "$(stat -fc %T /tmp)" = tmpfs ]'
ok 'a scope by systemd' in_vm 'systemd-run -q --scope -p MemoryMax=64M sh -c "cat /sys/fs/cgroup\$(sed s/0::// /proc/self/cgroup)/memory.max" | grep -x 67108864'
ok 'a user manager with delegated controllers, subordinate ids' in_vm 'loginctl enable-linger user; systemd-run -q --user -M user@ --wait --pipe -p Delegate=yes \
  sh -c "cat /sys/fs/cgroup\$(sed s/0::// /proc/self/cgroup)/cgroup.controllers" | grep -x "cpuset cpu io memory pids"; grep -q user:100000:65536 /etc/subuid'

# What goes in and comes out.
ok 'a shared directory is readable, runs programs, is not writable' in_vm '[ "$(cat /in/file)" = hello ]; [ "$(/in/script a b)" = "ran a b" ]; ! touch /in/x'
echo changed > "$work/in/new" && mv "$work/in/new" "$work/in/file"
ok 'a file replaced on the host is seen' in_vm '[ "$(cat /in/file)" = changed ]'
in_vm 'echo result > /out/result; chmod 640 /out/result'
ok 'a rw directory brings results' test "$(cat "$work/out.d/result"):$(stat -c %a "$work/out.d/result")" = result:640
ok 'push and pull' sh -ec '"$1" push "$2/in" /root/pushed; "$1" pull /root/pushed "$2/pulled"; diff -r "$2/in" "$2/pulled"' - "$VM" "$work"
ok 'exit status' status_of 7 "$VM" exec -- sh -c 'exit 7'
ok 'time limit' status_of 124 "$VM" exec --timeout 2 -- sleep 60
ok 'arguments arrive as they are' test "$("$VM" exec -- printf '<%s>' 'a  b' "it's" '$HOME' '')" = "<a  b><it's><\$HOME><>"
ok 'stdin, stdout and stderr' test "$(echo in | "$VM" exec -- sh -c 'cat; echo err >&2' 2> "$work/stderr")$(<"$work/stderr")" = inerr
ok 'no second machine of the same name' status_of 125 "$VM" up

# A second machine beside it; it panics, is tried once more, and leaves nothing.
ok 'run passes the exit status, beside another machine' status_of 9 "$VM" run --share "$work/in:/in" -- sh -c 'cat /in/file; exit 9'
ok '... and the output' grep -qx changed "$work/stdout"
ok 'a machine that panics is tried once more' status_of 3 "$VM" run --share "$work/out.d:/out:rw" -- \
  sh -c '[ ! -e /out/again ] || exit 3; touch /out/again; sync; echo c > /proc/sysrq-trigger'
ok '... which is told' grep -q 'once more' "$work/stderr"
"$VM" run --share "$work/out.d:/out:rw" -- sh -c 'touch /out/started; exec sleep 600' & run=$!
for _ in {1..600}; do [[ ! -e $work/out.d/started ]] || break; sleep 0.2; done
kill -TERM $run
wait $run
ok 'run ends on SIGTERM' test $? = 143
sleep 1
ok '... and leaves nothing' test -z "$(left "run-$run-")"
ok 'the first machine still runs' in_vm true
ok 'down' "$VM" down
sleep 1
ok '... leaves nothing' test -z "$(left "$VM_NAME")"
ok 'exec says that there is no machine' status_of 125 "$VM" exec -- true
mkdir "$work/bin" && ln -s /usr/bin/* /usr/sbin/* "$work/bin/" 2> /dev/null
rm "$work/bin/qemu-system-x86_64"
PATH=$work/bin ok 'a missing tool' status_of 125 "$VM" up
ok '... is named by its package' grep -q 'not installed: qemu-system-x86 (apt-get install' "$work/stderr"

echo "vm selftest: $passed passed, $failed failed"
[[ $failed == 0 ]]
