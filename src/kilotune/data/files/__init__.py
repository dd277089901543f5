"""Files to rows and rows to files, whatever kind they are of; what rows mean is not known here."""
