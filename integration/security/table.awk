# Makes the table of integration/security/security from `reasons`, `rows` and the suite's words.
# `names`: the runtimes; `logs`: where a file of each is.

BEGIN {
    FS = " *[|] *"
    columns = split(names, runtime, " ")
    for (i = 1; i <= columns; i++) {
        file = logs "/" runtime[i]
        while ((getline line < file) > 0) read(runtime[i], line)
        close(file)
    }
    printf "\n| | attack"
    for (i = 1; i <= columns; i++) printf " | %s", runtime[i]
    printf " |\n| --- | ---"
    for (i = 1; i <= columns; i++) printf " | ---"
    print " |"
}
function read(name, line,    word, test, why) {
    # That is a fault, and no way out of a container.
    if (line ~ /: hung: /) { went[name, failed] = "hung"; return }
    if (line !~ /^(ok|FAILED|skipped|elsewhere) /) return
    word = line; sub(/ .*/, "", word)
    test = line; sub(/^[a-zA-Z]+ /, "", test); sub(/( \(|: ).*/, "", test)
    why = line; sub(/^[^:]*::[^:]*: /, "", why)
    went[name, test] = word
    failed = test
    told[name, test] = why
}
FILENAME ~ /reasons$/ {
    if (!/^#/ && NF == 3) reason[$1, $2] = $3
    next
}
/^#/ || NF != 3 { next }
{
    printf "| %s | %s", $1, $2
    for (i = 1; i <= columns; i++) printf " | %s", cell(runtime[i], $3)
    print " |"
}
function cell(name, list,    n, test, i, how, ok, lost, notes, said) {
    n = split(list, test, " ")
    for (i = 1; i <= n; i++) {
        how = went[name, test[i]]
        if (how == "ok") ok++
        else if (how == "hung" && name !~ /^husk/) notes = note(notes, "it hangs in a race")
        else if (how == "hung") lost++
        else if (how == "FAILED" && (name, test[i]) in reason) notes = note(notes, reason[name, test[i]])
        else if (how == "FAILED") lost++
        else if (how == "elsewhere" || name ~ /^husk/) notes = note(notes, "not tried here: " told[name, test[i]])
    }
    if (lost) {
        if (name ~ /^husk/) broken = 1
        return "**vulnerable**"
    }
    said = ok ? "immune" : ""
    if (notes != "") return said (ok ? "; " : "") notes
    return ok ? said : "not applicable: what is tried is husk's"
}
function note(notes, more) {
    if (index(notes, more)) return notes
    return notes (notes == "" ? "" : "; ") more
}
END { print ""; exit broken }
