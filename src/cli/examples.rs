//! What stands below the options in a command's help and in its man page.

/// Lines of a command and what it does.
pub fn of(command: &str) -> &'static str {
    match command {
        "run" => {
            "\
Examples:
  husk run -b /tmp/box box                       the bundle's program, in the foreground
  husk run --overlay -b /tmp/box box             what it writes is forgotten, the bundle stays as it was
  husk run --overlay=/srv/keep -b /tmp/box box   what it writes is kept there for the next time
  husk run -d --pid-file pid -b /tmp/box box     in the background"
        }
        "create" => {
            "\
Examples:
  husk create -b /tmp/box box  then: husk start box
  husk --log log.json --log-format json create --bundle /tmp/box --pid-file pid box"
        }
        "start" => {
            "\
Examples:
  husk start box                         after: husk create -b /tmp/box box
  husk --trace trace.json start box      with what each step takes"
        }
        "state" => {
            "\
Examples:
  husk state box
  husk state box | jq -r .status         creating, created, running, paused or stopped"
        }
        "pause" => {
            "\
Examples:
  husk pause box                         until: husk resume box"
        }
        "resume" => {
            "\
Examples:
  husk resume box                        after: husk pause box"
        }
        "checkpoint" => {
            "\
Examples:
  husk checkpoint --image-path /srv/box box
  husk checkpoint --image-path /srv/box --leave-running box"
        }
        "restore" => {
            "\
Examples:
  husk restore --image-path /srv/box -b /tmp/box box
  husk restore --image-path /srv/box -b /tmp/box --detach --pid-file pid box"
        }
        "exec" => {
            "\
Examples:
  husk exec box ps
  husk exec -t -u 1000:1000 --cwd /srv -e DEBUG=1 box sh
  husk exec --process process.json --detach --pid-file pid box"
        }
        "kill" => {
            "\
Examples:
  husk kill box            SIGTERM
  husk kill box KILL       names with or without SIG, or numbers
  husk kill --all box 9"
        }
        "delete" => {
            "\
Examples:
  husk delete box
  husk delete --force box  kill it first; content if there is none of that name"
        }
        "list" => {
            "\
Examples:
  husk list
  husk list --quiet | xargs -r -n 1 husk delete --force
  husk list --format json"
        }
        "ps" => {
            "\
Examples:
  husk ps box
  husk ps box -o pid,rss,args    options of ps(1)
  husk ps --format json box"
        }
        "update" => {
            "\
Examples:
  husk update --memory 512m --pids-limit 100 box
  husk update --cpu-quota 50000 --cpu-period 100000 box
  husk update --resources - box <resources.json"
        }
        "events" => {
            "\
Examples:
  husk events --stats box         once
  husk events --interval 10s box  again and again, and when memory runs out"
        }
        "check" => {
            "\
Examples:
  husk check /tmp/box
  husk check --format json /tmp/box
  husk check - <config.json      the document alone"
        }
        "seccomp" => {
            "\
Examples:
  husk seccomp explain /tmp/box
  husk seccomp explain profile.json --syscall clone --arg 0=0x10000000
  husk seccomp explain profile.json --syscall mount --cap sys_admin --arch aarch64"
        }
        "spec" => {
            "\
Examples:
  husk spec                      config.json for a shell, here
  husk spec -b /tmp/box -- sleep 1000
  husk spec --rootless
  husk spec --image-config blobs/sha256/… -b /tmp/box"
        }
        "features" => {
            "\
Examples:
  husk features                  what husk supports, as the specification has it
  husk features --host           what this machine has, and what is missing for what"
        }
        _ => "",
    }
}
