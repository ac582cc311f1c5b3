# Turns SQL files into a C table of {path, text}; see server/db/sqlfiles.h.
BEGIN {
    print "#include \"server/db/sqlfiles.h\"\n"
    print "const struct sqlfile sqlfiles[] = {"
}
FNR == 1 {
    if (NR > 1)
        print "    },"
    printf "    {\"%s\",\n", FILENAME
}
{
    gsub(/\\/, "\\\\&")
    gsub(/"/, "\\\\&")
    gsub(/\t/, "\\t")
    printf "     \"%s\\n\"\n", $0
}
END {
    print "    },\n    {NULL, NULL},\n};"
}
