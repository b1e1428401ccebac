# The table of the validation, which is the first file, with what the others say: DIR/runtime-tools/RUNTIME/PLACE/TEST.tap.
BEGIN { OFS = "\t" }

function settle() {
    if (key) row[key] = key OFS own_verdict() OFS tap_verdict() OFS OK OFS WRONG
}
FILENAME ~ /\.tsv$/ { split($0, f, OFS); row[f[1] OFS f[2] OFS f[3]] = $0; next }
FNR == 1 {
    settle()
    n = split(FILENAME, path, "/")
    sub(/\.tap$/, "", path[n])
    key = path[n] OFS path[n - 2] OFS path[n - 1]
    validation_begins()
}
{ validation_line($0) }
END {
    settle()
    for (key in row) print row[key] | "sort"
}
