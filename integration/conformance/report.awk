# Writes the tables of docs/conformance.md. The first file is `reasons`, the others
# are results/validation.tsv and results/runc.tsv.
# A test that husk fails and that has no reason there is named, and makes this fail.

BEGIN {
    split("husk runc crun", runtimes, " ")
    word["p"] = "pass"; word["F"] = "fail"; word["s"] = "skip"
    FS = " *[|] *"
}

# ---- reading -------------------------------------------------------------------------
function as_regex(glob) {
    gsub(/[][().+^$\\{}]/, "\\\\&", glob)
    gsub(/\*/, ".*", glob)
    gsub(/\?/, ".", glob)
    return "^" glob "$"
}
NR == FNR {
    if (/^#/ || /^ *$/) next
    where_[++reasons] = as_regex($1)
    file_[reasons] = as_regex($2)
    test_[reasons] = as_regex($3)
    text_[reasons] = $4
    next
}
FNR == 1 { suite = FILENAME ~ /validation/ ? "runtime-tools" : "runc" }
suite == "runtime-tools" {
    split($0, f, "\t")
    file = f[1]; runtime = f[2]; part = f[3]
    add(files, suite, file)
    add(places, "place", part)
    validated[runtime, part] = 1
    own[file, runtime, part] = f[4]
    held[file, runtime, part] = f[6]
    broke[file, runtime, part] = f[7]
    own_total[runtime, part, f[4]]++
    tap_total[runtime, part, f[5]]++
    ok_total[runtime, part] += f[6]
    wrong_total[runtime, part] += f[7]
}
suite == "runc" {
    n = split($0, f, "\t")
    if (FNR == 1) {
        for (i = 3; i <= n; i++) {
            split(f[i], run, " ")
            runtime_[i] = run[1]; part_[i] = run[2]
            add(parts, "part", run[2])
        }
        next
    }
    add(files, suite, f[1])
    add(tests, f[1], f[2])
    all++
    for (i = 3; i <= n; i++) {
        how = word[f[i]]
        if (how == "") continue
        went[f[1], f[2], runtime_[i], part_[i]] = how
        total[runtime_[i], part_[i], how]++
        if (!((runtime_[i], part_[i], f[1]) in has)) { has[runtime_[i], part_[i], f[1]]; ran_files[runtime_[i], part_[i]]++ }
    }
}
function sort_parts(    i, j, part) {
    for (i = 2; i <= parts["part", 0]; i++) {
        part = parts["part", i]
        for (j = i - 1; j >= 1 && parts["part", j] > part; j--) parts["part", j + 1] = parts["part", j]
        parts["part", j + 1] = part
    }
}
# A list without doubles, in order: list[key, 0] is its length.
function add(list, key, value) {
    if ((key, "of", value) in list) return
    list[key, "of", value] = 1
    list[key, ++list[key, 0]] = value
}

# ---- writing -------------------------------------------------------------------------
function reason(where, file, test,    i) {
    for (i = 1; i <= reasons; i++)
        if (where ~ where_[i] && file ~ file_[i] && test ~ test_[i]) { used[i] = 1; return text_[i] }
    print "no reason for: " where " | " file " | " test > "/dev/stderr"
    unexplained++
    return "**unexplained**"
}
function heading(first, last,    i, line, rule) {
    line = "| " first " |"; rule = "| --- |"
    for (i = 1; i in runtimes; i++) { line = line " " runtimes[i] " |"; rule = rule " --- |" }
    print line (last ? " " last " |" : "")
    print rule (last ? " --- |" : "")
}
function plain(text) { gsub(/\|/, "\\|", text); gsub(/</, "\\&lt;", text); gsub(/\*/, "\\*", text); return text }

# Nothing for a runtime that was not run there.
function tally(runtime, place, text) {
    return ((runtime, place) in validated) ? " " text " |" : " |"
}
function validation(place,    i, r, row, test, said) {
    print "### " (place == "vm" ? "In the machine" : "In namespaces")
    print ""
    heading("58 tests", "")
    row = "| verdict of the tests: pass / fail |"
    for (r = 1; r in runtimes; r++) row = row tally(runtimes[r], place, sprintf("%d / %d", own_total[runtimes[r], place, "pass"], own_total[runtimes[r], place, "fail"]))
    print row
    row = "| verdict of TAP: pass / fail / skipped |"
    for (r = 1; r in runtimes; r++) row = row tally(runtimes[r], place, sprintf("%d / %d / %d", tap_total[runtimes[r], place, "pass"], tap_total[runtimes[r], place, "fail"], tap_total[runtimes[r], place, "skip"]))
    print row
    row = "| assertions that hold / don't |"
    for (r = 1; r in runtimes; r++) row = row tally(runtimes[r], place, sprintf("%d / %d", ok_total[runtimes[r], place], wrong_total[runtimes[r], place]))
    print row
    print ""
    heading("test", "why not")
    for (i = 1; i <= files["runtime-tools", 0]; i++) {
        test = files["runtime-tools", i]
        row = "| " test " |"
        said = ""
        for (r = 1; r in runtimes; r++) {
            if (!((test, runtimes[r], place) in own)) { row = row " |"; continue }
            row = row sprintf(" %s %d%s |", own[test, runtimes[r], place], held[test, runtimes[r], place],
                broke[test, runtimes[r], place] ? ", " broke[test, runtimes[r], place] " not" : "")
            if (runtimes[r] == "husk" && own[test, "husk", place] == "fail")
                said = reason("validation-" place, test, "")
        }
        print row " " said " |"
    }
    print ""
}

function cell(file, test, runtime,    i, how, ran, passed) {
    for (i = 1; i <= parts["part", 0]; i++) {
        how = went[file, test, runtime, parts["part", i]]
        if (how == "pass" || how == "fail") ran++
        if (how == "pass") passed++
    }
    if (!ran) return " |"
    return (passed == ran ? passed : "**" passed + 0 "** of " ran) " |"
}
# Why husk fails, each reason once, with the parts that it is for.
function why(file, test,    i, part, text, line, seen, list, n, j) {
    n = 0
    for (i = 1; i <= parts["part", 0]; i++) {
        part = parts["part", i]
        if (went[file, test, "husk", part] != "fail") continue
        text = reason(part, file, test)
        if (went[file, test, "runc", part] == "pass") { behind++; if (text ~ /^open:/) mendable++ }
        if (!(text in seen)) { seen[text] = ""; list[++n] = text }
        seen[text] = seen[text] (seen[text] ? ", " : "") part (went[file, test, "runc", part] == "fail" ? "*" : "")
    }
    for (j = 1; j <= n; j++) line = line (j > 1 ? "; " : "") list[j] " (" plain(seen[list[j]]) ")"
    return line
}
function counts(runtime, part,    n) {
    n = total[runtime, part, "pass"] + total[runtime, part, "fail"] + total[runtime, part, "skip"]
    if (!n) return " |"
    return sprintf(" %d / %d / %d%s |", total[runtime, part, "pass"], total[runtime, part, "fail"], total[runtime, part, "skip"],
        n < all ? " (in " ran_files[runtime, part] " of the files)" : "")
}
function runc_suite(    i, j, r, row, file, test, part, only) {
    heading("part: passed / failed / skipped", "")
    for (i = 1; i <= parts["part", 0]; i++) {
        part = parts["part", i]
        row = "| " part " |"
        for (r = 1; r in runtimes; r++)
            row = row counts(runtimes[r], part)
        print row
    }
    for (i = 1; i <= files["runc", 0]; i++) {
        file = files["runc", i]
        print "\n### " file "\n"
        heading("test", "where husk fails, and why")
        for (j = 1; j <= tests[file, 0]; j++) {
            test = tests[file, j]
            row = "| " plain(test) " |"
            for (r = 1; r in runtimes; r++) row = row " " cell(file, test, runtimes[r])
            print row " " why(file, test) " |"
        }
    }
}

END {
    sort_parts()
    print "## The runtime-tools' validation\n"
    for (i = 1; i <= places["place", 0]; i++) validation(places["place", i])
    print "## runc's integration tests\n"
    runc_suite()
    printf "tests that runc passes and husk fails: %d, of which husk can mend %d\n", behind, mendable > "/dev/stderr"
    if (unexplained) { print unexplained " failures without a reason" > "/dev/stderr"; exit 1 }
}
