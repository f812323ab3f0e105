"""One command per file: parse, call one library function, print."""
