"""Sentences by code: kept as code and values, worded when shown."""
