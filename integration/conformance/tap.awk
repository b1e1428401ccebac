# Functions that read results: TAP as runc's bats and as the runtime-tools write it.

# The test's name and how it went from a line of bats, into NAME and HOW.
function bats_line(line) {
    if (line !~ /^(not )?ok [0-9]+ /) return 0
    HOW = line ~ /^not/ ? "fail" : "pass"
    NAME = line
    sub(/^(not )?ok [0-9]+ /, "", NAME)
    if (sub(/ # skip.*$/, "", NAME)) HOW = "skip"
    sub(/ # in [0-9]+ ms$/, "", NAME)
    return 1
}

# A validation's lines one by one; its verdicts at the end, when OWN and TAP are asked for.
function validation_begins() { OK = WRONG = SKIPPED = PLANNED = PLAN = ERROR = STATUS = 0 }
function validation_line(line) {
    if (line ~ /^ok .*# SKIP/) SKIPPED++
    else if (line ~ /^ok /) OK++
    else if (line ~ /^not ok /) WRONG++
    else if (line ~ /^1\.\.[0-9]+$/) { PLANNED = 1; PLAN = substr(line, 4) + 0 }
    else if (line ~ /"error":|^ *error:|^panic:/) ERROR = 1
    else if (line ~ /^# status /) STATUS = substr(line, 10) + 0
}

# What the test itself says. Those of the hooks print `1..0` whatever happens, and an
# error if one does.
function own_verdict() {
    return WRONG || STATUS || ERROR && !OK ? "fail" : "pass"
}
# What a TAP harness makes of it: two tests print nothing at all if they pass.
function tap_verdict() {
    if (WRONG || STATUS || !PLANNED || PLAN != OK + WRONG + SKIPPED) return "fail"
    return PLAN ? "pass" : "skip"
}
