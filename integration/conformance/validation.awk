# A line for each test, and one of counts.
function settle() {
    if (!test) return
    printf "%-40s %-5s TAP: %-5s %4d ok %3d not ok %3d skipped\n", test, own_verdict(), tap_verdict(), OK, WRONG, SKIPPED
    own[own_verdict()]++; tap[tap_verdict()]++
    ok += OK; wrong += WRONG; skipped += SKIPPED
}
FNR == 1 { settle(); test = FILENAME; sub(/\.tap$/, "", test); validation_begins() }
{ validation_line($0) }
END {
    settle()
    printf "%d passed, %d failed; TAP: %d passed, %d failed, %d skipped; assertions: %d ok, %d not ok, %d skipped\n",
        own["pass"], own["fail"], tap["pass"], tap["fail"], tap["skip"], ok, wrong, skipped
}
