"""The command line: parse, call, render. No logic, and no torch until a command needs it."""
