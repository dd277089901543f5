"""From a file to rows, to examples, to findings, to a split. No torch here."""
