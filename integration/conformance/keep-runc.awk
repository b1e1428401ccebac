# The table of runc's suite, which is the first file, with what the others say: DIR/runc/RUNTIME/PART/FILE.tap.
BEGIN { FS = OFS = "\t" }

function row(file, test) {
    if ((file, test) in row_of) return row_of[file, test]
    file_of[++rows] = file
    test_of[rows] = test
    return row_of[file, test] = rows
}
function column(run) {
    if (run in column_of) return column_of[run]
    run_of[++columns] = run
    return column_of[run] = columns
}
FILENAME ~ /\.tsv$/ {
    if (FNR == 1) { for (i = 3; i <= NF; i++) column($i) ; next }
    r = row($1, $2)
    for (i = 3; i <= NF; i++) went[r, i - 2] = $i
    next
}
FNR == 1 {
    n = split(FILENAME, path, "/")
    file = path[n]
    sub(/\.tap$/, "", file)
    c = column(path[n - 2] " " path[n - 1])
    # A test that is no more has no result; of a run with a filter nobody knows.
    if (!/^# filter/) for (r = 1; r <= rows; r++) if (file_of[r] == file) delete went[r, c]
}
bats_line($0) { went[row(file, NAME), c] = HOW == "pass" ? "p" : HOW == "fail" ? "F" : "s" }
END {
    line = "file" OFS "test"
    for (c = 1; c <= columns; c++) line = line OFS run_of[c]
    print line
    # Sorted by file; the tests of one in their order.
    for (r = 1; r <= rows; r++) print_order[r] = r
    for (i = 2; i <= rows; i++) {
        r = print_order[i]
        for (j = i - 1; j >= 1 && file_of[print_order[j]] > file_of[r]; j--) print_order[j + 1] = print_order[j]
        print_order[j + 1] = r
    }
    for (i = 1; i <= rows; i++) {
        r = print_order[i]
        line = file_of[r] OFS test_of[r]
        for (c = 1; c <= columns; c++) line = line OFS ((r, c) in went ? went[r, c] : ".")
        print line
    }
}
